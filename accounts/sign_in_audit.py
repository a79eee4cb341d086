"""Sign-in, sign-out and own passwords in the audit trail: Django and allauth tell of them by signals only."""

from typing import Any

from allauth.account.signals import password_changed, password_reset
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import (
    authentication_failed,
    authenticator_added,
    authenticator_removed,
    authenticator_reset,
    authenticator_used,
)
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from accounts import audit
from accounts.models import User
from accounts.second_factor import was_turned_off


def connect() -> None:
    user_logged_in.connect(record_sign_in)
    user_logged_out.connect(record_sign_out)
    user_login_failed.connect(record_failed_sign_in)
    password_changed.connect(record_password_change)
    password_reset.connect(record_password_reset)
    authenticator_added.connect(record_second_factor_added)
    authenticator_removed.connect(record_second_factor_turned_off)
    authenticator_reset.connect(record_recovery_codes_renewed)
    authenticator_used.connect(record_second_factor_used)
    authentication_failed.connect(record_failed_second_factor)


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


def record_locked_sign_in(*, user: User | None) -> None:
    """Somebody went on after too many failures: refused without looking at password or code."""
    laboratory = user.laboratory if user else None
    audit.record(action="sign_in_locked", actor=None, target=user, laboratory=laboratory, known=bool(user))


def record_second_factor_added(*, user: User, authenticator: Authenticator, **_: Any) -> None:
    audit.record(action="second_factor_added", actor=user, target=user, kind=authenticator.type)


def record_second_factor_turned_off(
    *, request: HttpRequest, user: User, authenticator: Authenticator, **_: Any
) -> None:
    audit.record(action="second_factor_turned_off", actor=user, target=user, kind=authenticator.type)
    if authenticator.type == Authenticator.Type.TOTP:
        was_turned_off(request=request, user=user)


def record_recovery_codes_renewed(*, user: User, **_: Any) -> None:
    audit.record(action="recovery_codes_renewed", actor=user, target=user)


def record_second_factor_used(*, user: User, authenticator: Authenticator, **_: Any) -> None:
    audit.record(action="second_factor_used", actor=user, target=user, kind=authenticator.type)


def record_failed_second_factor(*, user: User, authenticator: Authenticator, **_: Any) -> None:
    """Nobody is signed in yet: whose factor it was is the target."""
    laboratory = user.laboratory
    audit.record(action="second_factor_failed", actor=None, target=user, laboratory=laboratory, kind=authenticator.type)


def record_refused_oidc_sign_in(*, user: User | None, code: str) -> None:
    """`code` says why; the address that the provider gave is not kept."""
    laboratory = user.laboratory if user else None
    audit.record(
        action="sign_in_failed", actor=None, target=user, laboratory=laboratory, known=bool(user), way="oidc", code=code
    )
