"""Where a laboratory wants to be told of events: adding an address, its secret, a test, a message once more."""

import secrets
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts import audit
from accounts.models import Laboratory, User
from accounts.roles import Verb
from accounts.secret_text import encrypt
from classifier.errors import Conflict, InvalidInput, NotAllowed
from classifier.models import MessageState, WebhookEndpoint, WebhookEvent, WebhookMessage
from classifier.querysets import visible_to
from classifier.safe_address import target_of
from classifier.services.permission import require
from classifier.webhooks import hasten, write

MOST_ENDPOINTS = 10
BOTH_SIGN_FOR = timedelta(hours=24)
# What an endpoint can be told of; a test message is sent on request only.
CHOICES = tuple(event for event in WebhookEvent if event != WebhookEvent.TEST)


def endpoints_of(user: User) -> QuerySet[WebhookEndpoint]:
    """The endpoints of the user's laboratory, the newest first."""
    return WebhookEndpoint.objects.filter(visible_to(user, "laboratory"))


def with_waiting(endpoints: QuerySet[WebhookEndpoint]) -> QuerySet[WebhookEndpoint]:
    """Adds `waiting`, how many messages are still to be sent; without looking at those that are through."""
    waiting = WebhookMessage.objects.filter(endpoint=OuterRef("pk"), next_try_at__isnull=False).order_by()
    counted = waiting.values("endpoint").annotate(count=Count("pk")).values("count")
    return endpoints.annotate(waiting=Coalesce(Subquery(counted), 0))


def messages_of(user: User) -> QuerySet[WebhookMessage]:
    return WebhookMessage.objects.filter(visible_to(user, "endpoint__laboratory"))


def in_state(messages: QuerySet[WebhookMessage], state: str) -> QuerySet[WebhookMessage]:
    """Those of the messages whose `state` is this one."""
    delivered = Q(delivered_at__isnull=False)
    waiting = Q(next_try_at__isnull=False)
    conditions = {
        MessageState.DELIVERED: delivered,
        MessageState.WAITING: waiting,
        MessageState.GIVEN_UP: ~delivered & ~waiting,
    }
    return messages.filter(conditions[MessageState(state)])


@transaction.atomic
def add_endpoint(
    *, actor: User, url: str, events: Collection[str], endpoint_id: UUID | None = None
) -> tuple[WebhookEndpoint, str]:
    """Tell `url` of `events` from now on. Returns the endpoint and its secret, the only time that it can be read.

    A form that is sent twice names its `endpoint_id`, so that it adds one endpoint. Raises NotAllowed; InvalidInput
    (url_*, events_missing, unknown_event); Conflict (too_many_endpoints, endpoint_exists).
    """
    require(actor, Verb.ADMINISTER)
    url = url.strip()
    target_of(url)
    wanted = checked_events(events)
    # Two administrators at the same moment are counted one by one.
    laboratory = Laboratory.objects.select_for_update(no_key=True).get(pk=actor.laboratory_id)  # type: ignore[misc]
    if laboratory.webhook_endpoints.filter(active=True).count() >= MOST_ENDPOINTS:
        message = f"A laboratory has at most {MOST_ENDPOINTS} endpoints. Switch one off first."
        raise Conflict("too_many_endpoints", message)
    secret = new_secret()
    endpoint = WebhookEndpoint(laboratory=laboratory, url=url, events=wanted, secret=encrypt(secret), made_by=actor)
    if endpoint_id is not None:
        endpoint.id = endpoint_id
    try:
        with transaction.atomic():
            endpoint.save(force_insert=True)
    except IntegrityError:
        message = "This endpoint is there already. Its secret was shown once; make a new one if it is lost."
        raise Conflict("endpoint_exists", message) from None
    audit.record(action="webhook_endpoint_added", actor=actor, target=endpoint, events=wanted)
    return endpoint, secret


def new_secret() -> str:
    """256 random bits, in signs that survive a copy and a shell."""
    return f"hvs_{secrets.token_urlsafe(32)}"


def checked_events(events: Collection[str]) -> list[str]:
    if not events:
        raise InvalidInput("events_missing", "Choose at least one event that the address is told of.")
    if unknown := sorted(set(events) - set(CHOICES)):
        message = f"There is no event {unknown[0][:40]!r}. Known: {', '.join(CHOICES)}."
        raise InvalidInput("unknown_event", message)
    return [str(event.value) for event in CHOICES if event in events]


@transaction.atomic
def rotate_secret(*, actor: User, endpoint: WebhookEndpoint) -> str:
    """Make a new secret and return it. For 24 hours the one before signs as well. Raises NotAllowed, Conflict."""
    locked = locked_endpoint(actor, endpoint)
    secret = new_secret()
    locked.previous_secret = locked.secret
    locked.previous_secret_until = timezone.now() + BOTH_SIGN_FOR
    locked.secret = encrypt(secret)
    locked.save(update_fields=["secret", "previous_secret", "previous_secret_until"])
    audit.record(action="webhook_secret_rotated", actor=actor, target=locked)
    return secret


@transaction.atomic
def switch_off_endpoint(*, actor: User, endpoint: WebhookEndpoint) -> None:
    """Tell the address nothing more; what waits for it is given up. Raises NotAllowed, Conflict (switched_off)."""
    locked = locked_endpoint(actor, endpoint)
    locked.active = False
    locked.save(update_fields=["active"])
    waiting = locked.messages.filter(next_try_at__isnull=False)
    dropped = waiting.update(next_try_at=None, claim_token=None, claim_expires_at=None, last_code="switched_off")
    audit.record(action="webhook_endpoint_switched_off", actor=actor, target=locked, messages=dropped)


@transaction.atomic
def send_test_message(*, actor: User, endpoint: WebhookEndpoint) -> WebhookMessage:
    """Queue a message that tells of nothing. Raises NotAllowed, Conflict (switched_off)."""
    locked = locked_endpoint(actor, endpoint)
    message = WebhookMessage(endpoint=locked, event=WebhookEvent.TEST, content={"endpoint": str(locked.pk)})
    write([message])
    audit.record(action="webhook_test_sent", actor=actor, target=locked, message=str(message.pk))
    return WebhookMessage.objects.get(pk=message.pk)


@transaction.atomic
def replay_message(*, actor: User, message: WebhookMessage) -> WebhookMessage:
    """Queue the message's content once more, as a new message.

    Raises NotAllowed; Conflict (switched_off, not_sent_yet, not_kept).
    """
    endpoint = locked_endpoint(actor, message.endpoint)
    kept = WebhookMessage.objects.filter(pk=message.pk).first()
    if kept is None:
        raise Conflict("not_kept", "This message is so old that it was deleted at this moment.")
    message = kept
    if message.state == MessageState.WAITING:
        raise Conflict("not_sent_yet", "This message still waits and is sent by itself. Replay one that is through.")
    again = WebhookMessage(endpoint=endpoint, event=message.event, content=message.content, replay_of=message)
    write([again])
    audit.record(action="webhook_replayed", actor=actor, target=endpoint, message=str(again.pk), of=str(message.pk))
    return WebhookMessage.objects.get(pk=again.pk)


@transaction.atomic
def send_now(*, actor: User, endpoint: WebhookEndpoint) -> int:
    """Try what waits for the endpoint at once, because its receiver is back. Returns how many messages that are."""
    locked = locked_endpoint(actor, endpoint)
    due = hasten(locked)
    audit.record(action="webhook_sent_now", actor=actor, target=locked, messages=due)
    return due


def locked_endpoint(actor: User, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """The endpoint as it is now. Raises NotAllowed; Conflict (switched_off)."""
    require(actor, Verb.ADMINISTER)
    if endpoint.laboratory_id != actor.laboratory_id:
        raise NotAllowed("not_allowed", "This endpoint belongs to another laboratory.")
    locked = WebhookEndpoint.objects.select_for_update(no_key=True).get(pk=endpoint.pk)
    if not locked.active:
        raise Conflict("switched_off", "This endpoint is switched off. Add the address again to use it.")
    return locked
