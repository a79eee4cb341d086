"""Verifies the audit trail: every event is there, once, as it was when it was sealed, and every seal follows another.

Memory stays flat however long the trail is: seals and events pass by in blocks, and that no event is missing, twice
or unsealed is seen from sums of keyed hashes. Only a trail that is broken in that way is read once more for the row.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet

from accounts.audit_heads import Head, heads_in
from accounts.audit_triggers import missing_triggers
from accounts.models import AuditEvent, AuditEventToSeal, AuditSeal
from accounts.seals import (
    Key,
    StoredSeal,
    event_sha256,
    facts_from,
    known_keys,
    oldest_unsealed_age,
    seal_mac,
    stored_events,
    stored_seals,
)

CHUNK = 1000
# What is told of a broken trail: who has changed a million rows needs no million lines.
MOST_FINDINGS = 20
LATE = timedelta(minutes=5)
FACTS = 7

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Finding:
    """What is wrong, and with which row: the id of an event, or the number of a seal."""

    row: str
    sentence: str


@dataclass
class Outcome:
    """What a verification found."""

    events: int = 0
    seals: int = 0
    waiting: int = 0
    last_seal: int = 0
    heads: int | None = None
    broken: int = 0
    findings: list[Finding] = field(default_factory=list)
    missing_triggers: list[str] = field(default_factory=list)
    unknown_keys: set[str] = field(default_factory=set)
    no_key: bool = False
    oldest_waiting: timedelta | None = None

    @property
    def exit_code(self) -> int:
        """0: whole; 1: broken; 2: could not verify."""
        if self.findings or self.missing_triggers:
            return 1
        return 2 if self.unknown_keys or self.no_key else 0

    @property
    def is_late(self) -> bool:
        """Whether events wait so long that nobody seems to seal."""
        return self.oldest_waiting is not None and self.oldest_waiting > LATE

    def add(self, row: object, sentence: str) -> None:
        self.broken += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(str(row), sentence))


class Sum:
    """The sum of keyed hashes of ids: two collections have the same only if they hold the same ids as often.

    The key is made for one run, so that nobody can have chosen rows whose sums agree.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.total = 0
        self.count = 0

    def add(self, pk: UUID) -> None:
        hashed = hashlib.blake2b(pk.bytes, key=self.key, digest_size=32).digest()
        self.total = (self.total + int.from_bytes(hashed)) % 2**256
        self.count += 1


@contextmanager
def one_moment() -> Iterator[None]:
    """All reads inside see the database as it was at one moment, and nobody waits for them."""
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
    else:
        # `atomic` would take the write lock.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")


def verify(*, heads: Path | None = None, progress: Progress = lambda _what, _count: None) -> Outcome:
    """Verify the whole trail; with `heads` also that its end was not cut off. Raises OSError for an unusable file."""
    # Heads are written after their seal: those that are there now are all in what is read from now on.
    known_size = heads.stat().st_size if heads else 0
    with one_moment():
        return Verification(progress).run(heads, known_size)


class Verification:
    def __init__(self, progress: Progress) -> None:
        self.outcome = Outcome()
        self.keys = known_keys()
        self.progress = progress
        key = secrets.token_bytes(32)
        self.listed, self.stored = Sum(key), Sum(key)
        self.pending: list[tuple[int, str, str]] = []

    def run(self, heads: Path | None, known_size: int) -> Outcome:
        outcome = self.outcome
        outcome.no_key = not self.keys
        self.check_seals()
        self.check_sums()
        if heads:
            self.check_heads(heads, known_size)
        outcome.missing_triggers = missing_triggers()
        outcome.oldest_waiting = oldest_unsealed_age()
        return outcome

    # --- The chain -----------------------------------------------------------------------------------------------
    def check_seals(self) -> None:
        before = (0, "")
        try:
            for seal in stored_seals():
                # First what the seals before say of their events: findings come in the order of the trail.
                if problem := self.problem_of(seal, *before):
                    self.check_pending()
                    self.outcome.add(*problem)
                before = (seal.number, seal.mac)
                self.outcome.seals += 1
                self.pending += [(seal.number, event, sha256) for event, sha256 in seal.entries or ()]
                if len(self.pending) >= CHUNK:
                    self.check_pending()
                    self.progress("events", self.listed.count)
        except ValueError:
            # A database that keeps anything in any column.
            self.outcome.add(before[0] + 1, f"Seal {before[0] + 1} can't be read.")
        self.check_pending()
        self.outcome.last_seal = before[0]

    def problem_of(self, seal: StoredSeal, number_before: int, mac_before: str) -> tuple[int, str] | None:
        if seal.number != number_before + 1:
            missing = number_before + 1
            return missing, f"Seal {missing} is missing: after {number_before or 'nothing'} comes {seal.number}."
        if seal.previous_mac != mac_before:
            return seal.number, f"Seal {seal.number} does not follow the seal before it."
        if seal.entries is None:
            return seal.number, f"Seal {seal.number} does not list its events any more."
        key = self.keys.get(seal.key_id)
        if key is None:
            return self.problem_of_unknown_key(seal)
        return None if fits(key, seal) else (seal.number, f"Seal {seal.number} was changed.")

    def problem_of_unknown_key(self, seal: StoredSeal) -> tuple[int, str] | None:
        if any(fits(key, seal) for key in self.keys.values()):
            return seal.number, f"Seal {seal.number} was changed: it names another key than the one it was made with."
        if self.keys:
            self.outcome.unknown_keys.add(seal.key_id)
        return None

    def check_pending(self) -> None:
        """Compare the events that the seals list with those that are stored."""
        pending, self.pending = self.pending, []
        if not pending:
            return
        ids = [pk for _, event, _ in pending if (pk := uuid_or_none(event))]
        stored = {str(row[0]): row for row in stored_events(ids)}
        for number, event, sha256 in pending:
            row = stored.get(event)
            if pk := uuid_or_none(event):
                self.listed.add(pk)
            if row is None:
                self.outcome.add(event, f"The event is gone or can't be read; seal {number} lists it.")
            elif not hmac.compare_digest(event_sha256(row), sha256):
                self.outcome.add(event, f"The event is not what was sealed in seal {number}.")
            elif not isinstance(facts_from(row[FACTS]), dict):
                self.outcome.add(event, "The event's facts are no object.")

    # --- Nothing missing, nothing twice, nothing beside the chain --------------------------------------------------
    def check_sums(self) -> None:
        listed = self.listed.count
        for pk in each(AuditEventToSeal.objects.order_by().values_list("pk", flat=True)):
            self.listed.add(pk)
        self.outcome.waiting = self.listed.count - listed
        try:
            for pk in each(AuditEvent.objects.order_by().values_list("pk", flat=True)):
                self.stored.add(pk)
                if not self.stored.count % (50 * CHUNK):
                    self.progress("ids", self.stored.count)
        except ValueError:
            self.outcome.add("(no id)", "A row of the trail has an id that is none.")
        self.outcome.events = self.stored.count
        if (self.listed.total, self.listed.count) != (self.stored.total, self.stored.count):
            self.find_strays()

    def find_strays(self) -> None:
        """Name the events that are sealed twice, wait though they are sealed, wait and are gone, or do neither."""
        sealed: set[bytes] = set()
        for seal in stored_seals():
            for event, _ in seal.entries or ():
                pk = uuid_or_none(event)
                if pk and pk.bytes in sealed:
                    self.outcome.add(event, f"The event is sealed twice, the second time in seal {seal.number}.")
                elif pk:
                    sealed.add(pk.bytes)
        waiting = {pk.bytes for pk in each(AuditEventToSeal.objects.order_by().values_list("pk", flat=True))}
        for twice in sorted(sealed & waiting):
            self.outcome.add(UUID(bytes=twice), "The event is sealed and waits for a seal again.")
        here: set[bytes] = set()
        try:
            for pk in each(AuditEvent.objects.order_by("at", "id").values_list("pk", flat=True)):
                here.add(pk.bytes)
                if pk.bytes not in sealed and pk.bytes not in waiting:
                    self.outcome.add(pk, "The event is in no seal and does not wait for one.")
        except ValueError:
            pass  # said already
        for gone in sorted(waiting - here):
            self.outcome.add(UUID(bytes=gone), "The event waits for its seal and is gone.")

    # --- The end -------------------------------------------------------------------------------------------------
    def check_heads(self, path: Path, known_size: int) -> None:
        """Every head of the file is a seal that is still there."""
        self.outcome.heads = 0
        with path.open("rb") as file:
            for heads in chunks(heads_in(file, known_size)):
                numbers = [head.number for head in heads]
                macs = dict(AuditSeal.objects.filter(number__in=numbers).values_list("number", "mac"))
                for head in heads:
                    self.check_head(head, macs.get(head.number))
                self.outcome.heads += len(heads)

    def check_head(self, head: Head, mac: str | None) -> None:
        if mac is None:
            sentence = f"Seal {head.number} is in the file of heads and not in the database"
            end = ": the end of the trail was cut off." if head.number > self.outcome.last_seal else "."
            self.outcome.add(head.number, sentence + end)
        elif not hmac.compare_digest(mac, head.mac):
            self.outcome.add(head.number, f"Seal {head.number} is another one than the file of heads knows.")


def fits(key: Key, seal: StoredSeal) -> bool:
    if not isinstance(seal.sealed_at, datetime):
        return False
    mac = seal_mac(key, seal.number, seal.sealed_at, seal.previous_mac, seal.entries)
    return hmac.compare_digest(mac, seal.mac)


def uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def each(rows: QuerySet[Any, UUID]) -> Iterator[UUID]:
    return rows.iterator(chunk_size=10 * CHUNK)


def chunks(heads: Iterable[Head]) -> Iterator[list[Head]]:
    chunk: list[Head] = []
    for head in heads:
        chunk.append(head)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
