"""What an administrator does with the people of a laboratory."""

from collections.abc import Sequence

from django.db import transaction

from accounts import audit
from accounts.models import User


@transaction.atomic
def save_user(*, actor: User, user: User, changed_fields: Sequence[str]) -> User:
    """Store a new or changed user; the trail gets the names of the fields, never their values."""
    created = user._state.adding
    user.save()
    audit.record(
        action="user_created" if created else "user_changed",
        actor=actor,
        target=user,
        laboratory=user.laboratory,
        fields=sorted(changed_fields),
    )
    return user
