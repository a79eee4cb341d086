from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from accounts.roles import Scope
from accounts.tokens import ScopeNotAllowed, create_token


class Command(BaseCommand):
    help = "Create an API token and print it, alone on the last line. It can't be read again later."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")
        parser.add_argument(
            "--scope",
            action="append",
            choices=Scope.values,
            default=[],
            help="May be repeated; default: all of the role.",
        )
        parser.add_argument("--name", default="command line")

    def handle(self, *args: Any, email: str, scope: list[str], name: str, **options: Any) -> None:
        user = User.objects.filter(email__iexact=email, is_active=True).first()
        if user is None:
            message = f"There is no active user {email}."
            raise CommandError(message)
        try:
            token = create_token(user=user, name=name, scopes=scope)
        except ScopeNotAllowed as error:
            raise CommandError(str(error)) from error
        self.stdout.write(token)
