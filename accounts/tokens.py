"""API tokens: made once, shown once, stored as a hash."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication

from accounts import audit
from accounts.models import ApiToken, User
from accounts.roles import scopes_of_role


class ScopeNotAllowed(ValueError):
    """A scope was asked for that the user's role does not have. The message is for people."""


@transaction.atomic
def create_token(
    *, user: User, name: str = "token", scopes: Collection[str] = (), lifetime: timedelta | None = timedelta(days=365)
) -> str:
    """Make a token and return its bare text, the only time that it can be read.

    Without `scopes` it has every scope that the role allows. Raises `ScopeNotAllowed`.
    """
    if user.laboratory is None:
        message = "A platform operator has no laboratory, so a token could reach nothing."
        raise ScopeNotAllowed(message)
    allowed = scopes_of_role(user.role)
    if refused := sorted(set(scopes) - set(allowed)):
        message = f"The role {user.role} has no scope {', '.join(refused)}; it has {', '.join(allowed)}."
        raise ScopeNotAllowed(message)
    granted = [scope for scope in allowed if scope in scopes] if scopes else allowed
    _, text = ApiToken.objects.create(user, expiry=lifetime, name=name, scopes=granted)
    audit.record(action="token_created", actor=user, laboratory=user.laboratory, scopes=granted)
    return str(text)


class ApiTokenAuthentication(TokenAuthentication):
    """`Authorization: Token ...`; notes the last use, at most once a minute."""

    def authenticate_credentials(self, token: bytes) -> tuple[User, ApiToken]:
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
