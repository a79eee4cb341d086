from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from classifier.errors import HematoVisionError
from classifier.model_registry import register_bundle
from ml.errors import ModelUnavailable
from ml.model_card import shipped_bundle


class Command(BaseCommand):
    help = "Register a model bundle (default: the shipped one). It becomes active only where no version is active."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("bundle", nargs="?", type=Path)

    def handle(self, *args: Any, bundle: Path | None, **options: Any) -> None:
        try:
            version = register_bundle(bundle or shipped_bundle())
        except ModelUnavailable as error:
            if bundle:
                raise CommandError(error.message) from error
            # The platform starts without a model: images stay queued, and the pages say why.
            self.stderr.write(f"The shipped model can't be used: {error.message}")
            return
        except HematoVisionError as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{version} is registered{' and active' if version.active else ''}.")
