"""API tokens: made once, shown once, stored as a hash."""

from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed

from accounts import audit
from accounts.models import ApiToken, User
from accounts.roles import scopes_of_role


class ScopeNotAllowed(ValueError):
    """A scope was asked for that the user's role does not have. The message is for people."""


@transaction.atomic
def create_token(
    *,
    user: User,
    actor: User | None = None,
    name: str = "token",
    scopes: Collection[str] = (),
    lifetime: timedelta | None = timedelta(days=365),
) -> str:
    """Make a token of `user` and return its bare text, the only time that it can be read.

    `actor` is None on the command line. Without `scopes` it has every scope that the role allows.
    Raises `ScopeNotAllowed`.
    """
    if user.laboratory is None:
        message = "A platform operator has no laboratory, so a token could reach nothing."
        raise ScopeNotAllowed(message)
    allowed = scopes_of_role(user.role)
    if refused := sorted(set(scopes) - set(allowed)):
        message = f"The role {user.role} has no scope {', '.join(refused)}; it has {', '.join(allowed)}."
        raise ScopeNotAllowed(message)
    granted = [scope for scope in allowed if scope in scopes] if scopes else allowed
    token, text = ApiToken.objects.create(user, expiry=lifetime, name=name, scopes=granted)
    record_token(action="token_created", actor=actor, token=token)
    return str(text)


@transaction.atomic
def revoke_tokens(*, actor: User | None, tokens: Iterable[ApiToken]) -> int:
    """Delete the tokens, so that they open nothing from now on; the trail keeps what names them. Returns how many."""
    revoked = list(tokens)
    for token in revoked:
        record_token(action="token_revoked", actor=actor, token=token)
        token.delete()
    return len(revoked)


def record_token(*, action: str, actor: User | None, token: ApiToken) -> None:
    # The row goes when it is revoked or runs out, so the event itself says which token it was, by its first characters.
    audit.record(
        action=action,
        actor=actor,
        target=token.user,
        laboratory=token.user.laboratory,
        name=token.name,
        token_key=token.token_key,
        scopes=token.scopes,
    )


class ApiTokenAuthentication(TokenAuthentication):
    """`Authorization: Token ...`; notes the last use, at most once a minute."""

    def authenticate_credentials(self, token: bytes) -> tuple[User, ApiToken]:
        # Knox would fail on bytes that are no UTF-8, and PostgreSQL on a NUL; a real token is hexadecimal.
        if not token.isalnum():
            raise AuthenticationFailed
        user, api_token = super().authenticate_credentials(token)
        now = timezone.now()
        if api_token.last_used_at is None or now - api_token.last_used_at > timedelta(minutes=1):
            ApiToken.objects.filter(pk=api_token.pk).update(last_used_at=now)
        return user, api_token


class ApiTokenScheme(OpenApiAuthenticationExtension):
    target_class = ApiTokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Authorization: Token YOUR_TOKEN`, made by `manage.py create_token EMAIL`.",
        }
