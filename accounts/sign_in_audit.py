"""Sign-in, sign-out and own passwords in the audit trail: Django and allauth tell of them by signals only."""

from typing import Any

from allauth.account.signals import password_changed, password_reset
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed

from accounts import audit
from accounts.models import User


def connect() -> None:
    user_logged_in.connect(record_sign_in)
    user_logged_out.connect(record_sign_out)
    user_login_failed.connect(record_failed_sign_in)
    password_changed.connect(record_password_change)
    password_reset.connect(record_password_reset)


def record_sign_in(*, user: User, **_: Any) -> None:
    audit.record(action="signed_in", actor=user, target=user)


def record_sign_out(*, user: User | None, **_: Any) -> None:
    if user is not None:
        audit.record(action="signed_out", actor=user, target=user)


def record_failed_sign_in(*, credentials: dict[str, Any], **_: Any) -> None:
    address = credentials.get("email") or credentials.get("username") or ""
    user = User.objects.filter(email__iexact=address).first()
    audit.record(
        action="sign_in_failed", actor=None, target=user, laboratory=user.laboratory if user else None, known=bool(user)
    )


def record_password_change(*, user: User, **_: Any) -> None:
    """The other sessions end with the old password; tokens stay: their page lists each with its last use."""
    audit.record(action="password_changed", actor=user, target=user)


def record_password_reset(*, user: User, **_: Any) -> None:
    audit.record(action="password_reset", actor=user, target=user)
