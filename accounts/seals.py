"""Seals: audit events in blocks, chained under a key that the database does not hold.

Nobody who writes an event waits for a seal: a trigger notes the event in a queue, and the sealer empties the queue
afterwards. Each seal lists its events with their hashes and bears a MAC that covers the MAC of the seal before.
"""

import hashlib
import hmac
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, models, transaction
from django.db.models.functions import Cast
from django.utils import timezone

from accounts.audit_heads import append_heads
from accounts.models import AuditEvent, AuditEventToSeal, AuditSeal

logger = structlog.get_logger(__name__)
BLOCK = 1000
# As many blocks as fit into one run of the task with room to spare; the next run goes on.
MOST_BLOCKS = 50
# How far the clocks of two processes may be apart when a seal is looked for by its time.
CLOCK_SKEW = timedelta(minutes=5)
# How long after the first seal that could list an event it is looked for: a sealer that is behind has caught up then.
LOOKED_THROUGH = timedelta(days=1)
# Every column of an event, in the order in which `event_sha256` takes them.
COLUMNS = (
    "id",
    "at",
    "actor_id",
    "laboratory_id",
    "action",
    "target_type",
    "target_id",
    "facts",
    "ip",
    "request_id",
)


@dataclass(frozen=True)
class Key:
    """A key of the chain. `id` may be known: it names the key in the seals."""

    id: str
    secret: bytes


def key_of(text: str) -> Key:
    secret = text.encode()
    return Key(hashlib.sha256(secret).hexdigest()[:16], secret)


def known_keys() -> dict[str, Key]:
    """The key in use and those of before, by id. Empty where the environment has none."""
    texts = [settings.AUDIT_KEY, *settings.AUDIT_KEY_FALLBACKS]
    return {key.id: key for key in map(key_of, filter(None, texts))}


# --- What is hashed ----------------------------------------------------------------------------------------------
def canonical(value: Any) -> bytes:
    """One way to write a JSON value, the same on every database and in every version."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr).encode()


def plain_numbers(value: Any) -> Any:
    """A JSON value in which 2.0 is 2, as PostgreSQL may store it."""
    if isinstance(value, dict):
        return {name: plain_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def packed(ip: str | None) -> str | None:
    """Databases and versions of Python write one address in several ways; its bytes are always the same."""
    try:
        return ip_address(ip).packed.hex() if ip else None
    except ValueError:
        return ip


def facts_from(text: str) -> Any:
    """What the column holds; text that is no JSON, which somebody must have put there, as it is."""
    try:
        return plain_numbers(json.loads(text))
    except (ValueError, TypeError):
        return text


def event_sha256(row: Sequence[Any]) -> str:
    """The SHA-256 (hex) of an event, over all of COLUMNS."""
    pk, at, actor, laboratory, action, target_type, target_id, facts, ip, request_id = row
    told = [
        str(pk),
        utc(at) if isinstance(at, datetime) else at,
        str(actor) if actor else None,
        str(laboratory) if laboratory else None,
        *(action, target_type, target_id),
        facts_from(facts),
        packed(ip),
        request_id,
    ]
    return hashlib.sha256(canonical(told)).hexdigest()


def stored_events(pks: Collection[UUID | str]) -> list[tuple[Any, ...]]:
    """The events as rows of COLUMNS, as they are stored. One that can't be read, on a database that keeps anything in
    any column, is left out.
    """
    columns = ["facts_text" if column == "facts" else column for column in COLUMNS]
    events = AuditEvent.objects.order_by().annotate(facts_text=Cast("facts", models.TextField()))
    try:
        return list(events.filter(pk__in=pks).values_list(*columns))
    except (ValueError, TypeError, OverflowError):
        return [] if len(pks) == 1 else [row for pk in pks for row in stored_events([pk])]


def seal_mac(key: Key, number: int, sealed_at: datetime, previous_mac: str, entries: Any) -> str:
    """The HMAC-SHA-256 (hex) of a seal; `entries` is `[[event id, SHA-256], ...]`."""
    told = canonical([number, utc(sealed_at), previous_mac, entries])
    return hmac.new(key.secret, told, hashlib.sha256).hexdigest()


# --- Sealing -----------------------------------------------------------------------------------------------------
def seal_events() -> int:
    """Seal what waits, block by block, and write down the new heads. Returns how many events were sealed.

    Two sealers at once: the one whose number is taken gives way, and what it had taken waits for the next run.
    """
    sealed = 0
    for _ in range(MOST_BLOCKS):
        block = seal_block()
        sealed += block
        if block < BLOCK:
            break
    # Also when nothing was sealed: a crash may have come between a seal and its head.
    append_heads(settings.AUDIT_HEADS_FILE)
    return sealed


def seal_block() -> int:
    """Seal up to BLOCK waiting events under one number; returns how many, 0 where nothing waits or another is at it."""
    if not waiting_events().exists():
        return 0
    key = key_of(settings.AUDIT_KEY)
    try:
        with transaction.atomic():
            taken = waiting_events().select_for_update(of=("self",), skip_locked=True).order_by("pk")
            rows = stored_events(list(taken.values_list("pk", flat=True)[:BLOCK]))
            if not rows:
                return 0
            rows.sort(key=lambda row: (row[1], str(row[0])))
            last = AuditSeal.objects.order_by("-number").values_list("number", "mac").first()
            number, previous_mac = (last[0] + 1, last[1]) if last else (1, "")
            sealed_at = timezone.now()
            entries = [[str(row[0]), event_sha256(row)] for row in rows]
            AuditSeal(
                number=number,
                sealed_at=sealed_at,
                entries=entries,
                previous_mac=previous_mac,
                mac=seal_mac(key, number, sealed_at, previous_mac, entries),
                key_id=key.id,
            ).save()
            AuditEventToSeal.objects.filter(pk__in=[row[0] for row in rows]).delete()
    except IntegrityError:
        logger.info("audit_seal_gave_way")
        return 0
    return len(rows)


def waiting_events() -> models.QuerySet[AuditEventToSeal]:
    """Waiting events that are there. One that somebody deleted stays in the queue, for the verification to find."""
    return AuditEventToSeal.objects.filter(event__action__isnull=False)


# --- Reads -------------------------------------------------------------------------------------------------------
def oldest_unsealed_age() -> timedelta | None:
    """How long the oldest event has waited for its seal; None where none waits. More than a minute: nobody seals."""
    oldest = unsealed_events().aggregate(oldest=models.Min("at"))["oldest"]
    return None if oldest is None else max(timezone.now() - oldest, timedelta())


def unsealed_events() -> models.QuerySet[AuditEventToSeal]:
    """What waits for its seal, with `at`."""
    # From the few that wait to their times: over a join SQLite would begin at the oldest event of all.
    at = models.Subquery(AuditEvent.objects.filter(pk=models.OuterRef("pk")).order_by().values("at"))
    return AuditEventToSeal.objects.annotate(at=at)


def waits_for_seal(event: AuditEvent) -> bool:
    return AuditEventToSeal.objects.filter(pk=event.pk).exists()


def seal_of(event: AuditEvent) -> int | None:
    """The number of the seal that lists the event; None where none of those does that were made next.

    Looked through are the seals up to a day after the first one that came after the event, however late that was: it
    may be from before there were seals, or from when nobody sealed.
    """
    # The index on the time leads to those seals; a list in JSON has no index of its own.
    seals = AuditSeal.objects.filter(sealed_at__gte=event.at - CLOCK_SKEW).order_by("sealed_at", "number")
    if first := seals.filter(sealed_at__gt=event.at + CLOCK_SKEW).values_list("sealed_at", flat=True).first():
        seals = seals.filter(sealed_at__lte=first + LOOKED_THROUGH)
    listing = seals.annotate(text=Cast("entries", models.TextField())).filter(text__contains=str(event.pk))
    return listing.values_list("number", flat=True).first()


@dataclass(frozen=True)
class StoredSeal:
    """A seal as it is stored. `entries` is None where it is no list of pairs of texts."""

    number: int
    sealed_at: datetime
    previous_mac: str
    mac: str
    key_id: str
    entries: list[list[str]] | None


def stored_seals() -> Iterator[StoredSeal]:
    """All seals in the order of their numbers, a few at a time.

    Read them inside one transaction: PostgreSQL would otherwise make all rows at once, and keep them.
    """
    rows = AuditSeal.objects.order_by("number").annotate(text=Cast("entries", models.TextField()))
    columns = ("number", "sealed_at", "previous_mac", "mac", "key_id", "text")
    for number, sealed_at, previous_mac, mac, key_id, text in rows.values_list(*columns).iterator(chunk_size=50):
        yield StoredSeal(number, sealed_at, previous_mac, mac, key_id, entries_of(text))


def entries_of(text: str) -> list[list[str]] | None:
    try:
        entries = json.loads(text)
    except (ValueError, TypeError):
        return None
    pairs = isinstance(entries, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in entries
    )
    return entries if pairs else None
