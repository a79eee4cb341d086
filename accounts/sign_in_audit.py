"""Sign-in, failed sign-in and sign-out in the audit trail: Django tells of them by signals only."""

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from accounts import audit
from accounts.models import User


def connect() -> None:
    user_logged_in.connect(record_sign_in)
    user_logged_out.connect(record_sign_out)
    user_login_failed.connect(record_failed_sign_in)


def record_sign_in(*, user: User, **_: Any) -> None:
    audit.record(action="signed_in", actor=user, target=user)


def record_sign_out(*, user: User | None, **_: Any) -> None:
    if user is not None:
        audit.record(action="signed_out", actor=user, target=user)


def record_failed_sign_in(*, credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    address = credentials.get("email") or credentials.get("username") or ""
    user = User.objects.filter(email__iexact=address).first()
    audit.record(
        action="sign_in_failed", actor=None, target=user, laboratory=user.laboratory if user else None, known=bool(user)
    )
