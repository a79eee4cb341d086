import getpass
import secrets
import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accounts import audit
from accounts.models import Laboratory, User
from accounts.roles import Role


class Command(BaseCommand):
    help = "Create a user of a laboratory. The password is asked for, read from standard input, or made."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--laboratory", help="Its name; not needed while there is only one.")
        parser.add_argument("--role", choices=Role.values, default=Role.READER)
        parser.add_argument("--name", default="", help="The person's name, as it will be shown and signed.")
        parser.add_argument("--generate-password", action="store_true", help="Make a password and print it.")

    @transaction.atomic
    def handle(self, *args: Any, email: str, role: str, name: str, **options: Any) -> None:
        laboratory = self.find_laboratory(options["laboratory"])
        if User.objects.filter(email__iexact=email).exists():
            message = f"No user was made: {email} is in use."
            raise CommandError(message)
        password = self.password(generate=options["generate_password"]) if role != Role.SERVICE else None
        try:
            if password is not None:
                validate_password(password, User(email=email, full_name=name))
            user = User.objects.create_user(email, password, laboratory=laboratory, role=role, full_name=name)
        except ValidationError as error:
            message = f"No user was made: {' '.join(error.messages)}"
            raise CommandError(message) from error
        audit.record(action="user_created", actor=None, target=user, laboratory=laboratory, role=role)
        self.stdout.write(f"{user.email} is a {user.get_role_display().lower()} of {laboratory}.")
        if role == Role.SERVICE:
            self.stdout.write(f"It has no password. Next: manage.py create_token {user.email}")
        elif options["generate_password"]:
            self.stdout.write(f"Password: {password}")

    def password(self, *, generate: bool) -> str:
        return secrets.token_urlsafe(12) if generate else ask_password()

    def find_laboratory(self, name: str | None) -> Laboratory:
        laboratories = Laboratory.objects.filter(name__iexact=name) if name else Laboratory.objects.all()
        if len(laboratories) == 1:
            return laboratories[0]
        known = ", ".join(Laboratory.objects.values_list("name", flat=True)) or "none; make one with create_laboratory"
        message = f"Name one laboratory with --laboratory. There is: {known}."
        raise CommandError(message)


def ask_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if password != getpass.getpass("Again: "):
        message = "The two passwords differ."
        raise CommandError(message)
    return password
