from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accounts import audit
from accounts.models import Laboratory


class Command(BaseCommand):
    help = "Create a laboratory."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="The laboratory's name, in quotes.")

    @transaction.atomic
    def handle(self, *args: Any, name: str, **options: Any) -> None:
        laboratory = Laboratory(name=name.strip())
        try:
            laboratory.full_clean()
        except ValidationError as error:
            message = f"No laboratory was made: {' '.join(error.messages)}"
            raise CommandError(message) from error
        laboratory.save()
        audit.record(action="laboratory_created", actor=None, target=laboratory, laboratory=laboratory)
        self.stdout.write(f"Laboratory {laboratory.name} is ready. Next: manage.py create_user EMAIL --laboratory ...")
