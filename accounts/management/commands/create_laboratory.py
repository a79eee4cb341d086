from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from accounts.models import Laboratory
from accounts.services import save_laboratory


class Command(BaseCommand):
    help = "Create a laboratory."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="The laboratory's name, in quotes.")
        parser.add_argument(
            "--requires-second-factor",
            action="store_true",
            help="Readers, auditors and administrators must sign in with a code beside the password.",
        )

    def handle(self, *args: Any, name: str, requires_second_factor: bool = False, **options: Any) -> None:
        laboratory = Laboratory(name=name.strip(), requires_second_factor=requires_second_factor)
        try:
            laboratory.full_clean()
        except ValidationError as error:
            message = f"No laboratory was made: {' '.join(error.messages)}"
            raise CommandError(message) from error
        save_laboratory(actor=None, laboratory=laboratory, changed_fields=["name", "requires_second_factor"])
        self.stdout.write(f"Laboratory {laboratory.name} is ready. Next: manage.py create_user EMAIL --laboratory ...")
