"""Service accounts: clients of a laboratory that are no person. An administrator makes them and switches them off."""

import secrets

from django.db import transaction

from accounts.models import User
from accounts.roles import Role, Verb
from accounts.services import save_user
from accounts.tokens import TokenRefused, looks_after, revoke_tokens


def open_service_account(*, actor: User, name: str) -> User:
    """Make a service account of the actor's laboratory. Nothing is ever mailed to it: its address is made up.

    Raises TokenRefused.
    """
    if not actor.may(Verb.ADMINISTER):
        message = "Only an administrator of the laboratory makes service accounts."
        raise TokenRefused(message)
    name = name.strip()
    if User.objects.filter(laboratory=actor.laboratory, role=Role.SERVICE, full_name__iexact=name).exists():
        message = "There is a service account of that name. Choose another one."
        raise TokenRefused(message)
    email = f"service-{secrets.token_hex(6)}@service.invalid"
    account = User(email=email, full_name=name, laboratory=actor.laboratory, role=Role.SERVICE)
    return save_user(actor=actor, user=account, changed_fields=["full_name", "role"])


@transaction.atomic
def switch_service_account(*, actor: User, account: User, on: bool) -> None:
    """Switch an account off, which revokes its tokens for good, or on again. Raises TokenRefused."""
    if account.role != Role.SERVICE or not looks_after(actor, account):
        message = "Only an administrator of the laboratory switches its service accounts."
        raise TokenRefused(message)
    account = User.objects.select_for_update(of=("self",)).select_related("laboratory").get(pk=account.pk)
    if account.is_active == on:
        return
    account.is_active = on
    save_user(actor=actor, user=account, changed_fields=["is_active"])
    if not on:
        revoke_tokens(actor=actor, tokens=account.auth_token_set.all())
