"""API tokens: made once, shown once, stored as a hash."""

from collections.abc import Collection, Iterable
from datetime import timedelta

from django.db import models, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from accounts import audit
from accounts.attempts import may_try
from accounts.built_statements import BuiltSelect, Given
from accounts.models import ApiToken, User
from accounts.roles import Role, Verb, scopes_of_role

# Nobody keeps track of more; a client that makes tokens in a loop stops here.
MOST_TOKENS = 20
TOKEN_OF_DIGEST: BuiltSelect[ApiToken] = BuiltSelect(
    ApiToken.objects.select_related("user").filter(digest=Given("digest", models.CharField())).order_by()
)


class TokenRefused(ValueError):
    """No token was made. The message is for people."""


class ScopeNotAllowed(TokenRefused):
    """A scope was asked for that the user's role does not have."""


def looks_after(actor: User, user: User) -> bool:
    """Whether the actor makes and revokes the user's tokens: one's own, or a service account's as an administrator."""
    return actor.pk == user.pk or (
        actor.may(Verb.ADMINISTER) and user.role == Role.SERVICE and user.laboratory_id == actor.laboratory_id
    )


def tokens_in_use(*users: User) -> QuerySet[ApiToken]:
    """The users' tokens that open something, the newest first."""
    live = Q(expiry=None) | Q(expiry__gt=timezone.now())
    tokens: QuerySet[ApiToken] = ApiToken.objects.filter(live, user__in=users)
    return tokens


@transaction.atomic
def make_token(*, actor: User, user: User, name: str, scopes: Collection[str], lifetime: timedelta) -> str:
    """Make a token on the page: with a name of its own, chosen scopes and an end. Returns its bare text.

    Raises TokenRefused (with its kind ScopeNotAllowed): a sentence for the person who asked.
    """
    if not looks_after(actor, user):
        message = "Tokens of other people are theirs to make. An administrator makes those of service accounts."
        raise TokenRefused(message)
    # Two forms at once must not make two tokens of one name, nor one for an account that is being switched off.
    user = User.objects.select_for_update(of=("self",)).select_related("laboratory").get(pk=user.pk)
    if not user.is_active:
        message = "This account is switched off, so a token of it would open nothing."
        raise TokenRefused(message)
    if not scopes:
        message = "Choose at least one thing that the token may do."
        raise TokenRefused(message)
    names = set(tokens_in_use(user).values_list("name", flat=True))
    if name.strip() in names:
        message = "There is a token of that name. Choose another name, or revoke that one first."
        raise TokenRefused(message)
    if len(names) >= MOST_TOKENS:
        message = f"There are {MOST_TOKENS} tokens already. Revoke those that are not used any more."
        raise TokenRefused(message)
    return create_token(user=user, actor=actor, name=name.strip(), scopes=scopes, lifetime=lifetime)


def revoke_token(*, actor: User, token: ApiToken) -> None:
    """Revoke a token on the page. Raises TokenRefused."""
    if not looks_after(actor, token.user):
        message = "Tokens of other people are theirs to revoke."
        raise TokenRefused(message)
    revoke_tokens(actor=actor, tokens=[token])


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
    """`Authorization: Token ...`; notes the last use, at most once a minute. Who guesses is slowed down by address."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        try:
            found: tuple[User, ApiToken] | None = super().authenticate(request)
        except AuthenticationFailed as error:
            # Only what failed is counted: a right token costs nothing, and works beside somebody who guesses.
            if not may_try(request._request, "api_token"):
                raise Throttled(wait=60) from error
            raise
        return found

    def authenticate_credentials(self, token: bytes) -> tuple[User, ApiToken]:
        # Knox would fail on bytes that are no UTF-8, and PostgreSQL on a NUL; a real token is hexadecimal.
        if not token.isalnum():
            raise AuthenticationFailed
        # By its hash, which is the key of its row: one statement, at each request, for all that can close a token.
        found = TOKEN_OF_DIGEST.one(digest=hash_token(token.decode()))
        now = timezone.now()
        if found is None or (found.expiry is not None and found.expiry < now):
            raise AuthenticationFailed("Invalid token.")
        if not found.user.is_active:
            raise AuthenticationFailed("User inactive or deleted.")
        if found.last_used_at is None or now - found.last_used_at > timedelta(minutes=1):
            ApiToken.objects.filter(pk=found.pk).update(last_used_at=now)
            # What ran out opens nothing; its row goes when its owner uses another one.
            ApiToken.objects.filter(user=found.user_id, expiry__lt=now).delete()
        return found.user, found
