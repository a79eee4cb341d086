"""The worker's side of webhooks: claim what is due, send it, write down what came of it; in a thread of its own.

The guarantees, and what gives each of them:
- nothing is lost: a message is a row, which stays due until it is acknowledged or three days have passed;
- a lost worker loses nothing: its claim expires, and what it may have sent already is sent again under the same id;
- an endpoint hears of things in their order: messages are claimed from the front of its line, by one worker at a time,
  and a receiver that can't be reached holds the whole line;
- a message that the receiver itself refuses holds up no other: it steps out of the line and is tried again by itself;
- images don't wait: requests run in threads, none of which touches the database.
"""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from accounts.secret_text import SecretUnreadable, decrypt
from classifier.models import WebhookEndpoint, WebhookMessage
from classifier.webhook_request import Answer, post, signature

logger = structlog.get_logger(__name__)
LOOK_SECONDS = 5
AT_ONCE = 8  # endpoints
IN_A_ROW = 8  # messages of one endpoint
TO_WRITE_DOWN = 20  # seconds that a claim outlasts the requests under it
BACK_OFF = tuple(timedelta(seconds=seconds) for seconds in (10, 60, 5 * 60, 30 * 60, 2 * 3600))
LATER = timedelta(hours=6)
GIVEN_UP_AFTER = timedelta(days=3)
# Answers that speak of this very message; any other failure speaks of the receiver.
OUT_OF_LINE = Q(tries__gt=0, last_status__in=(400, 409, 413, 415, 422))

wake = threading.Event()
starting = threading.Lock()
sender: threading.Thread | None = None


@dataclass(frozen=True)
class Claim:
    """Messages of one endpoint, in their order, that this worker holds under one token until the claim expires."""

    token: UUID
    endpoint: WebhookEndpoint
    messages: Sequence[WebhookMessage]
    secrets: Sequence[str]


def start() -> None:
    """Make sure that this process has its sender, and that it looks now."""
    global sender  # noqa: PLW0603 - one sender a process is the point
    with starting:
        if sender is None or not sender.is_alive():
            sender = threading.Thread(target=send_for_ever, name="webhooks", daemon=True)
            sender.start()
    wake.set()


def send_for_ever() -> None:
    while True:
        wake.wait(timeout=LOOK_SECONDS)
        wake.clear()
        try:
            send_due()
        # Whatever one look ran into, a database that is away say, the next one may succeed.
        except Exception as error:  # noqa: BLE001
            logger.warning("webhooks_not_sent", error=type(error).__name__)
            time.sleep(LOOK_SECONDS)
        finally:
            connection.close()


def send_due() -> int:
    """Send whatever is due, several endpoints at a time, until nothing is. Returns how many tries were made."""
    tried = 0
    under_way: dict[Future[list[Answer]], Claim] = {}
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="webhook") as threads:
        while True:
            for claim in claim_due(AT_ONCE - len(under_way)):
                under_way[threads.submit(deliver, claim)] = claim
            if not under_way:
                return tried
            # Not for ever: meanwhile something may fall due at an endpoint that answers.
            done, _ = wait(under_way, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                tried += settle(under_way.pop(future), future.result())


def claim_due(count: int) -> list[Claim]:
    """Claims at up to `count` endpoints that have something to send and nothing under way."""
    if count <= 0:
        return []
    waiting = waiting_messages().filter(endpoint=OuterRef("pk"))
    due = waiting.filter(next_try_at__lte=Now())
    held = waiting.filter(claim_expires_at__gt=Now())
    endpoints = WebhookEndpoint.objects.filter(Exists(due), ~Exists(held), active=True).order_by("pk")
    claims: list[Claim] = []
    for endpoint_id in endpoints.values_list("pk", flat=True):
        if len(claims) < count and (claim := claim_front(endpoint_id)):
            claims.append(claim)
    return claims


def waiting_messages() -> QuerySet[WebhookMessage]:
    return WebhookMessage.objects.filter(next_try_at__isnull=False)


@transaction.atomic
def claim_front(endpoint_id: UUID) -> Claim | None:
    """Claim what is due at the front of the endpoint's line. None where the front has to wait, or another was faster.

    The lock on the endpoint keeps two workers from claiming out of order; it does not hinder new messages.
    """
    lock = WebhookEndpoint.objects.select_for_update(skip_locked=True, no_key=True)
    endpoint = lock.filter(pk=endpoint_id, active=True).first()
    if endpoint is None:
        return None
    later = Q(next_try_at__gt=Now())
    line = waiting_messages().filter(endpoint=endpoint).exclude(OUT_OF_LINE & later).order_by("at", "id")
    free = line.annotate(is_held=Q(claim_expires_at__gt=Now()), must_wait=later)
    front = list(takewhile(lambda message: not message.is_held and not message.must_wait, free[:IN_A_ROW]))
    if not front:
        return None
    secrets = readable_secrets(endpoint)
    if not secrets:
        front = front[:1]
    token = uuid4()
    lasts = timedelta(seconds=IN_A_ROW * settings.WEBHOOK_SECONDS + TO_WRITE_DOWN)
    WebhookMessage.objects.filter(pk__in=[message.pk for message in front]).update(
        claim_token=token, claim_expires_at=Now() + lasts
    )
    return Claim(token, endpoint, front, secrets)


def readable_secrets(endpoint: WebhookEndpoint) -> list[str]:
    """The secrets that sign now, the newest first; none when the newest can't be read."""
    try:
        secrets = [decrypt(endpoint.secret)]
    except SecretUnreadable:
        return []
    if endpoint.previous_secret_until and endpoint.previous_secret_until > timezone.now():
        try:
            secrets.append(decrypt(endpoint.previous_secret))
        except SecretUnreadable:
            # Its successor signs as well.
            pass
    return secrets


def deliver(claim: Claim) -> list[Answer]:
    """Send the claim's messages one after the other, up to the first that fails. Touches no database."""
    if not claim.secrets:
        return [Answer(None, "secret_unreadable")]
    answers: list[Answer] = []
    for message in claim.messages:
        answers.append(send(claim.endpoint.url, message, claim.secrets))
        if not answers[-1].acknowledged:
            break
    return answers


def send(url: str, message: WebhookMessage, secrets: Sequence[str]) -> Answer:
    body = json.dumps(envelope(message), separators=(",", ":"), sort_keys=True).encode()
    now = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "HematoVision",
        "HematoVision-Event": message.event,
        "HematoVision-Message-Id": str(message.pk),
        "HematoVision-Timestamp": str(now),
        "HematoVision-Signature": signature(secrets, now, body),
    }
    return post(url, body, headers)


def envelope(message: WebhookMessage) -> dict[str, Any]:
    """What a receiver gets, the same at every try."""
    return {
        "id": str(message.pk),
        "event": message.event,
        "at": message.at.isoformat(),
        "replay_of": str(message.replay_of_id) if message.replay_of_id else None,
        "content": message.content,
    }


def settle(claim: Claim, answers: Sequence[Answer]) -> int:
    """Write down what came of each try and let the rest of the claim go. Returns how many tries were made."""
    ours = WebhookMessage.objects.filter(claim_token=claim.token)
    tried = list(zip(claim.messages, answers, strict=False))
    for answer in dict.fromkeys(answers):
        alike = [message for message, came in tried if came == answer]
        # Only the last one of a claim can have failed, so all that failed alike are one.
        delivered = {"delivered_at": Now(), "next_try_at": None}
        times = delivered if answer.acknowledged else {"next_try_at": next_try(alike[0], answer.pause)}
        ours.filter(pk__in=[message.pk for message in alike]).update(
            tries=F("tries") + 1,
            last_status=answer.status,
            last_code=answer.code,
            claim_token=None,
            claim_expires_at=None,
            **times,
        )
        if not answer.acknowledged:
            logger.warning(
                "webhook_not_acknowledged",
                endpoint=str(claim.endpoint.pk),
                message=str(alike[0].pk),
                code=answer.code,
                status=answer.status,
                tries=alike[0].tries + 1,
            )
    if len(answers) < len(claim.messages):
        ours.update(claim_token=None, claim_expires_at=None)
    return len(answers)


def next_try(message: WebhookMessage, pause: timedelta = timedelta(0)) -> Any:
    """When to try again after one more failure, by the database's clock; None once the message is given up.

    Not before the `pause` that the receiver asks for is over.
    """
    delay = max(BACK_OFF[message.tries] if message.tries < len(BACK_OFF) else LATER, pause)
    if timezone.now() + delay > message.at + GIVEN_UP_AFTER:
        return None
    return Now() + delay
