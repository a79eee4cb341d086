import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from classifier import stored_files
from classifier.errors import StorageUnavailable
from classifier.stored_files import Findings

EVERY_SECONDS = 5.0
WORDS = {
    "missing": "missing, though the image needs it",
    "altered": "not the file that was stored",
    "left_behind": "removed under a retention rule, but still there",
    "without_thumbnail": "without its thumbnail (the original is shown instead)",
    "orphans": "known to no row",
}


class Command(BaseCommand):
    help = (
        "Compare the stored files with the rows: every file's SHA-256, what is missing, and what nobody knows. Exit 0: "
        "sound; 1: files are missing, altered, or were not removed; 2: the object store does not answer."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--sample", type=int, metavar="N", help="hash only N files, taken by chance")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
        parser.add_argument(
            "--remove-orphans",
            action="store_true",
            help="delete files that no row names (older than an hour) and what is left of removed pictures",
        )

    def handle(self, *args: Any, sample: int | None, remove_orphans: bool, **options: Any) -> None:
        try:
            findings = stored_files.verify_files(sample=sample, step=self.progress())
            removed = stored_files.remove_orphans(findings) if remove_orphans else 0
        except StorageUnavailable as error:
            raise CommandError(error.message, returncode=2) from error
        if options["json"]:
            self.stdout.write(json.dumps({**findings.as_json(), "removed": removed}))
        else:
            self.tell(findings, removed)
        if not findings.is_sound:
            raise SystemExit(1)

    def tell(self, findings: Findings, removed: int) -> None:
        for name, words in WORDS.items():
            for found in getattr(findings, name):
                self.stdout.write(f"{found}: {words}")
        if removed:
            self.stdout.write(f"{removed:,} files removed.")
        verdict = "Sound" if findings.is_sound else "NOT SOUND"
        self.stdout.write(
            f"{verdict}: {findings.images:,} originals, {findings.hashed:,} hashed, {len(findings.missing):,} missing, "
            f"{len(findings.altered):,} altered, {len(findings.orphans):,} files without a row."
        )

    def progress(self) -> Any:
        """Says every few seconds how many files it has looked at, and how fast it reads."""
        began = told = time.monotonic()
        count = size = 0

        def step(read: int) -> None:
            nonlocal told, count, size
            count, size, now = count + 1, size + read, time.monotonic()
            if now - told >= EVERY_SECONDS:
                told = now
                self.stderr.write(f"{count:,} originals, {size / 1e6 / (now - began):.0f} MB a second")

        return step
