"""What a worker holds: images that it takes out of the queue under one token."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from itertools import accumulate
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models import F
from django.db.models.functions import Now

from accounts.built_statements import BuiltSelect, Given, OneOf
from classifier.models import CellImage, ImageStatus, Priority
from classifier.transitions import built_move

# Of a micro-batch: a slow core decodes so many in a fifth of the time limit.
MOST_PIXELS = 100_000_000
TOKEN = Given("token", models.UUIDField())
ANY_WAITING = BuiltSelect(CellImage.objects.claimable().order_by().values_list("pk")[:1])
ANY_INTERACTIVE = BuiltSelect(
    CellImage.objects.claimable().filter(priority=Priority.INTERACTIVE).order_by().values_list("pk")[:1]
)
TAKE = built_move(
    CellImage.objects.filter(OneOf("pk", "images", models.UUIDField())),
    source=ImageStatus.QUEUED,
    target=ImageStatus.CLAIMED,
    returning=True,
    claim_token=TOKEN,
    claim_expires_at=Now() + Given("seconds", models.DurationField()),
    claimed_alone=Given("alone", models.BooleanField()),
    attempts=F("attempts") + 1,
)


@dataclass(frozen=True)
class Claim:
    """Images that this worker holds, under one token, until it completes them or the claim expires."""

    token: UUID
    images: Sequence[CellImage]
    began: float = field(default_factory=time.monotonic)
    # Set once the store did not answer: a claim waits for that once, and not once for each image.
    store_is_away: threading.Event = field(default_factory=threading.Event)
    store_takes_nothing: threading.Event = field(default_factory=threading.Event)


def claim_batch(size: int) -> Claim:
    """Take the oldest queued images, interactive ones first. One that was claimed before is taken alone."""
    token = uuid4()
    with transaction.atomic():
        forget_if_database_dies()
        chosen = next_waiting(size).rows()
        if not chosen:
            return Claim(token, ())
        alone = chosen[0][1] > 0
        picked = [chosen[0][0]] if alone else [pk for pk, attempts, _ in of_bounded_size(chosen) if not attempts]
        seconds = timedelta(seconds=settings.CLAIM_SECONDS)
        claimed = {image.pk: image for image in TAKE.objects(images=picked, token=token, seconds=seconds, alone=alone)}
    # What was picked is locked, so all of it is there; in its order.
    return Claim(token, [claimed[pk] for pk in picked])


@cache
def next_waiting(size: int) -> BuiltSelect[CellImage]:
    """Locks so many images that nobody else locks, and gives (id, attempts, pixels) of each."""
    waiting = CellImage.objects.claimable().select_for_update(skip_locked=True)
    return BuiltSelect(waiting.values_list("pk", "attempts", F("width") * F("height"))[:size])


def of_bounded_size(chosen: Sequence[tuple[UUID, int, int]]) -> Sequence[tuple[UUID, int, int]]:
    """As many of these (id, attempts, pixels) as are decoded well within the time limit, and at least one."""
    sums = accumulate(pixels for _, _, pixels in chosen)
    return chosen[: max(1, sum(so_far <= MOST_PIXELS for so_far in sums))]


def forget_if_database_dies() -> None:
    """Let this transaction be committed without waiting for the disk. For a claim, which is no fact: should the server
    of the database lose it, the images are queued as before, and the late worker's completion finds no row.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")


def anything_waits() -> bool:
    return ANY_WAITING.any()


def anybody_waits() -> bool:
    """Whether a picture that somebody waits for is queued."""
    return ANY_INTERACTIVE.any()
