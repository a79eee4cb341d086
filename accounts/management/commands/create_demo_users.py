import secrets
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accounts import audit
from accounts.models import Laboratory, User
from accounts.roles import Role
from accounts.services import save_laboratory

DEMO_LABORATORY = "Demo laboratory"
DEMO_USERS = {
    Role.TECHNOLOGIST: "Tess Demo",
    Role.READER: "Ruth Demo",
    Role.AUDITOR: "Arno Demo",
    Role.ADMIN: "Ada Demo",
}


class Command(BaseCommand):
    help = "Create the demo laboratory and its four users where they are missing; passwords go to var/demo-users."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            message = "Demo users exist in demo mode only; this instance runs with PRODUCTION=1."
            raise CommandError(message)
        path = settings.VAR_DIR / "demo-users"
        known = dict(line.split(" ", 1) for line in path.read_text().splitlines()) if path.exists() else {}
        laboratory = Laboratory.objects.filter(name=DEMO_LABORATORY).first() or save_laboratory(
            actor=None, laboratory=Laboratory(name=DEMO_LABORATORY), changed_fields=["name"]
        )
        for role, name in DEMO_USERS.items():
            email = f"{role}@demo.example"
            user = User.objects.filter(email=email).first()
            if user is None:
                user = User.objects.create_user(email, None, laboratory=laboratory, role=role, full_name=name)
                audit.record(action="user_created", actor=None, target=user, laboratory=laboratory, role=role)
            # A password that its user changed is left alone: only one that nobody can know is made anew.
            if lost := email not in known:
                known[email] = secrets.token_urlsafe(12)
            if lost or not user.has_usable_password():
                user.set_password(known[email])
                user.save(update_fields=["password"])
            elif not user.check_password(known[email]):
                known[email] = "(changed by its user)"
        path.touch(mode=0o600)
        path.write_text("".join(f"{email} {password}\n" for email, password in known.items()))
