from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from accounts.refusals import AccountRefused
from accounts.second_factor import remove_second_factor


class Command(BaseCommand):
    help = "Take a lost second factor off a user: ends the sessions, and mails the person."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")

    def handle(self, *args: Any, email: str, **options: Any) -> None:
        user = User.objects.filter(email__iexact=email).first()
        if user is None:
            message = f"There is no user {email}."
            raise CommandError(message)
        try:
            remove_second_factor(actor=None, user=user)
        except AccountRefused as refusal:
            raise CommandError(refusal.message) from refusal
        self.stdout.write(f"{user.email} signs in with the password alone now. The sessions are ended.")
