from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from classifier.errors import StorageUnavailable
from classifier.storage_use import size_in_words
from hematovision.backup.errors import BackupRefused
from hematovision.backup.writing import back_up

UNSOUND_SHOWN = 10
ARCHIVES = "archives/"


class Command(BaseCommand):
    help = (
        "Back up the running instance into a new folder: database, files, models, heads of the audit trail. Exit 0: "
        "whole; 3: written, but files that it should hold were missing or altered; 1: nothing was written."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="must not exist yet, or be empty")

    def handle(self, *args: Any, folder: Path, **options: Any) -> None:
        try:
            manifest = back_up(folder.absolute(), self.stderr)  # type: ignore[arg-type]
        except BackupRefused as error:
            raise CommandError(error.message) from error
        except StorageUnavailable as error:
            message = f"{error.message} Nothing was written."
            raise CommandError(message) from error
        except OSError as error:
            message = f"{error.filename or folder} can't be used: {error.strerror}. Nothing was written."
            raise CommandError(message) from error
        except DatabaseError as error:
            message = f"The database broke off: {str(error).splitlines()[0]}. Nothing was written."
            raise CommandError(message) from error
        size = size_in_words(manifest.files_bytes)
        rows = sum(manifest.rows.values())
        self.stdout.write(f"{folder}: {rows:,} rows, {manifest.files:,} files, {size}.")
        self.stdout.write("Keep SECRET_KEY and AUDIT_KEY elsewhere: they are not in it, and a restore needs them.")
        for model in manifest.models_missing:
            self.stderr.write(f"The files of model {model} are gone, so they are not in the backup.")
        if unsound := manifest.unsound:
            for state, name in unsound[:UNSOUND_SHOWN]:
                self.stderr.write(f"{state}: {name}")
            if any(name.startswith(ARCHIVES) for _, name in unsound):
                self.stderr.write(
                    "The archive of a batch that was not checked yet is gone, so its pictures are not in the backup: "
                    "take another one."
                )
            message = f"{len(unsound):,} files were missing or altered: see manage.py verify_storage."
            raise CommandError(message, returncode=3)
