"""What an administrator does with the people of a laboratory, and the platform operator with laboratories."""

from collections.abc import Collection

from allauth.account.models import EmailAddress
from django.core.exceptions import ValidationError
from django.db import transaction

from accounts import audit
from accounts.models import Laboratory, User
from accounts.roles import Role
from accounts.tokens import revoke_tokens


def refuse_own_lockout(*, actor: User, user: User, changed_fields: Collection[str]) -> None:
    """Raise ValidationError (own_account) where an administrator would give up the own role or account."""
    if actor.pk == user.pk and {"role", "is_active"} & set(changed_fields):
        message = "You can't change your own role or switch off your own account. Ask another administrator."
        raise ValidationError(message, code="own_account")


@transaction.atomic
def save_user(*, actor: User, user: User, changed_fields: Collection[str]) -> User:
    """Store a new or changed user; the trail gets the names of the fields, never their values.

    Raises ValidationError (own_account).
    """
    refuse_own_lockout(actor=actor, user=user, changed_fields=changed_fields)
    created = user._state.adding
    # Sign-in looks for the address in small letters.
    user.email = user.email.lower()
    if user.role == Role.SERVICE:
        user.set_unusable_password()
    user.save()
    if "email" in changed_fields:
        # allauth keeps a copy of the address, by which the old one would still sign in.
        EmailAddress.objects.filter(user=user).delete()
    audit.record(
        action="user_created" if created else "user_changed",
        actor=actor,
        target=user,
        laboratory=user.laboratory,
        fields=sorted(changed_fields),
    )
    return user


@transaction.atomic
def take_over_account(*, actor: User, user: User) -> int:
    """Follow up on a password that an administrator has set: nobody who was in before stays in.

    The new password itself ends the sessions. Returns how many API tokens were revoked.
    """
    audit.record(action="password_set", actor=actor, target=user, laboratory=user.laboratory)
    return revoke_tokens(actor=actor, tokens=user.auth_token_set.all())


@transaction.atomic
def save_laboratory(*, actor: User | None, laboratory: Laboratory, changed_fields: Collection[str]) -> Laboratory:
    """Store a new or renamed laboratory; `actor` is None on the command line."""
    created = laboratory._state.adding
    laboratory.save()
    audit.record(
        action="laboratory_created" if created else "laboratory_changed",
        actor=actor,
        target=laboratory,
        laboratory=laboratory,
        fields=sorted(changed_fields),
    )
    return laboratory
