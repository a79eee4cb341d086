"""Hands in a folder of pictures, waits for the workers, and writes what came of each file."""

import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from accounts.roles import Role, Verb
from classifier import services
from classifier.archives import LABELS_FILE, Labels, is_ignored, label_for, read_labels
from classifier.batches import RESULT_COLUMNS, BatchProgress, members_waiting, progress_of, result_rows
from classifier.csv_stream import streamed
from classifier.errors import HematoVisionError, UploadRejected, UploadTooLarge
from classifier.models import Batch

LOOK_SECONDS = 0.5
BAR = 24


class Command(BaseCommand):
    help = (
        "Classify every picture of a folder and of the folders in it, as one batch for one case. Progress goes to the "
        "standard error. Ctrl-C ends the waiting, not the batch; the same command again goes on where it was."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="May hold a labels.csv (file,label) for a validation.")
        parser.add_argument("--accession", required=True, help="The case's accession number; opened if there is none.")
        parser.add_argument("--csv", type=Path, help="Where to write a line a file with its result.")
        parser.add_argument("--user", help="E-mail of the one who hands in; default: the only technologist there is.")

    def handle(self, *args: Any, folder: Path, accession: str, csv: Path | None, user: str | None, **_: Any) -> None:
        files = pictures_in(folder)
        labels = labels_in(folder)
        if csv is not None and not csv.parent.is_dir():
            message = f"There is no folder {csv.parent} to write the CSV into."
            raise CommandError(message)
        actor = chosen_user(user)
        try:
            batch = services.open_folder_batch(actor=actor, accession_number=accession, files=len(files))
            left = self.hand_in_and_wait(actor, batch, folder, files, labels)
        except HematoVisionError as error:
            raise CommandError(error.message) from error
        if csv is not None and not left:
            write_results(batch, csv)
        batch.refresh_from_db()
        progress = progress_of([batch])[batch.pk]
        self.say_end(batch, progress, left)
        if left:
            sys.exit(130)

    def hand_in_and_wait(
        self, actor: User, batch: Batch, folder: Path, files: Sequence[Path], labels: Labels | None
    ) -> bool:
        """Returns whether somebody left before the end. The batch goes on with what was handed in."""
        line = ProgressLine(self.stderr)
        try:
            try:
                for number, file in enumerate(files):
                    name = file.relative_to(folder).as_posix()
                    label = label_for(labels, name)[1] if labels else ""
                    services.add_to_batch(
                        actor=actor, batch=batch, number=number, name=name, read=Reading(file), label=label
                    )
                    line.show(f"{number + 1:,} of {len(files):,} handed in")
            finally:
                services.close_folder_batch(actor=actor, batch=batch, labels=labels)
            while waiting := members_waiting(batch):
                line.show(how_far(progress_of([batch])[batch.pk], len(files), waiting))
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            line.end()
            return True
        line.end()
        return False

    def say_end(self, batch: Batch, progress: BatchProgress, left: bool) -> None:
        if left:
            self.stderr.write(
                f"Left. The batch goes on; its page is /batches/{batch.pk}/. The same command again takes it up.",
                plain,
            )
            return
        parts = [f"{progress.classified:,} classified", f"{progress.failed:,} failed", f"{progress.refused:,} refused"]
        if progress.duplicates:
            parts.append(f"{progress.duplicates:,} there already")
        self.stderr.write(f"Done: {', '.join(parts)}. The batch's page is /batches/{batch.pk}/.", plain)


@dataclass(frozen=True)
class Reading:
    """Reads a file when its turn comes. A file that can't be read, or is far too large, is refused like any other."""

    file: Path

    def __call__(self) -> bytes:
        try:
            with self.file.open("rb") as opened:
                content = opened.read(settings.MAX_IMAGE_BYTES + 1)
        except OSError as error:
            raise UploadRejected("file_not_readable", "The file could not be read from the folder.") from error
        if len(content) > settings.MAX_IMAGE_BYTES:
            raise UploadTooLarge("file_too_large", "The file is larger than a picture may be. Export it smaller.")
        return content


class ProgressLine:
    """One line that is written over and over on a terminal, and now and then elsewhere."""

    def __init__(self, out: Any) -> None:
        self.out = out
        self.on_terminal = out.isatty()
        self.shown_at = 0.0

    def show(self, text: str) -> None:
        now = time.monotonic()
        if now - self.shown_at < (0.2 if self.on_terminal else 10.0):
            return
        self.shown_at = now
        if self.on_terminal:
            self.out.write(f"\r\x1b[K{text}", plain, ending="")
            self.out.flush()
        else:
            self.out.write(text, plain)

    def end(self) -> None:
        if self.on_terminal and self.shown_at:
            self.out.write("", plain)


def plain(text: str) -> str:
    """Not in the red in which a terminal shows what commands say on the standard error."""
    return text


def how_far(progress: BatchProgress, files: int, waiting: int) -> str:
    done = files - waiting
    filled = BAR * done // max(files, 1)
    parts = [f"[{'#' * filled}{'.' * (BAR - filled)}] {done:,} of {files:,}"]
    if progress.images_per_second:
        parts.append(f"{progress.images_per_second:.1f} a second")
    if progress.seconds_left:
        minutes, seconds = divmod(progress.seconds_left, 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return ", ".join(parts)


def pictures_in(folder: Path) -> list[Path]:
    """Every file below the folder, in a fixed order; what systems add by themselves and links are left out."""
    if not folder.is_dir():
        message = f"There is no folder {folder}."
        raise CommandError(message)
    found = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    files = [file for file in found if not is_ignored(file.relative_to(folder).as_posix())]
    if not files:
        message = f"The folder {folder} holds no files."
        raise CommandError(message)
    return files


def labels_in(folder: Path) -> Labels | None:
    file = folder / LABELS_FILE
    return read_labels(file.read_bytes()) if file.is_file() else None


def chosen_user(email: str | None) -> User:
    """The user of that address; without one, the only technologist there is. Raises CommandError."""
    active = User.objects.filter(is_active=True)
    if email is not None:
        user = active.filter(email__iexact=email).first()
        if user is None or not user.may(Verb.UPLOAD):
            message = f"There is no active user {email} who may upload."
            raise CommandError(message)
        return user
    technologists = list(active.filter(role=Role.TECHNOLOGIST)[:2])
    if len(technologists) != 1:
        message = "There is not exactly one technologist here, so say who hands in: --user EMAIL."
        raise CommandError(message)
    return technologists[0]


def write_results(batch: Batch, path: Path) -> None:
    """Written beside and moved into place: what lies there is never half a file."""
    fresh = path.with_name(f".{path.name}.part")
    with fresh.open("wb") as out:
        out.writelines(streamed(RESULT_COLUMNS, result_rows(batch)))
    fresh.replace(path)
