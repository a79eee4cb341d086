from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from classifier.errors import StorageUnavailable
from hematovision.backup.errors import BackupRefused, RestoreUnfinished
from hematovision.backup.restoring import restore


class Command(BaseCommand):
    help = (
        "Fill this empty instance from a backup, and check rows, files and audit trail. Exit 0: all is as it was; "
        "1: nothing was restored, or what comes after that failed (it says which)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, folder: Path, **options: Any) -> None:
        try:
            manifest = restore(folder.absolute(), self.stderr)  # type: ignore[arg-type]
        except (BackupRefused, RestoreUnfinished) as error:
            raise CommandError(error.message) from error
        except StorageUnavailable as error:
            message = f"{error.message} Nothing was restored."
            raise CommandError(message) from error
        except OSError as error:
            message = f"{error.filename or folder} can't be used: {error.strerror}. Nothing was restored."
            raise CommandError(message) from error
        except DatabaseError as error:
            message = f"The database refused the rows: {str(error).splitlines()[0]}. Nothing was restored."
            raise CommandError(message) from error
        self.stdout.write(f"Restored {sum(manifest.rows.values()):,} rows and {manifest.files:,} files; now checking.")
        call_command("verify_audit", stdout=self.stdout, stderr=self.stderr)
        call_command("verify_storage", stdout=self.stdout, stderr=self.stderr)
        self.stdout.write(f"Restored as of {manifest.created_at}. Start the instance.")
