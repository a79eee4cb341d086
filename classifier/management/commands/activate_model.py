from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from classifier.model_registry import activate_version
from classifier.models import ModelVersion
from ml.errors import ModelUnavailable


class Command(BaseCommand):
    help = "Make a registered model version the one that new images are classified with."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("version")

    def handle(self, *args: Any, name: str, version: str, **options: Any) -> None:
        found = ModelVersion.objects.filter(name=name, version=version).first()
        if found is None:
            known = ", ".join(str(known) for known in ModelVersion.objects.all()) or "none"
            message = f"There is no model version {name} {version}. Registered: {known}."
            raise CommandError(message)
        try:
            activate_version(actor=None, version=found)
        except ModelUnavailable as error:
            raise CommandError(error.message) from error
        self.stdout.write(f"{found} is active.")
