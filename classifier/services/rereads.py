"""Blind re-reads: drawing a share of the reviewed cells for one reader, reading them without the model, closing."""

import secrets
from collections.abc import Iterable
from datetime import date
from hashlib import sha256
from heapq import nsmallest
from math import ceil
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier.errors import Conflict, InvalidInput, NotAllowed
from classifier.models import BlindReading, BlindReread, RereadCell
from classifier.rereads import cells_left, drawable
from classifier.services.permission import require
from ml.labels import CELL_TYPES

MOST_CELLS = 1000


def draw_reread(
    *,
    actor: User,
    reader: User,
    size: int | None = None,
    share_percent: float | None = None,
    reviewed_from: date | None = None,
    reviewed_to: date | None = None,
) -> BlindReread:
    """Draw cells at random for `reader`: `size` of them, or `share_percent` of those that can be drawn, at most 1,000.

    The days are those of the current time zone, both included. Where fewer can be drawn than are wanted, it is all of
    them. Which and in what order: `drawn_in_order`, from the seed that is stored.
    Raises NotAllowed; InvalidInput (reader_not_possible, size_or_share, size_out_of_range, share_out_of_range,
    nothing_to_draw).
    """
    require(actor, Verb.AUDIT)
    if reader.laboratory_id != actor.laboratory_id or not reader.may(Verb.REVIEW):
        raise InvalidInput("reader_not_possible", "Choose somebody of your laboratory whose role reviews cells.")
    if (size is None) == (share_percent is None):
        raise InvalidInput("size_or_share", "Give either a number of cells or a share in percent.")
    if size is not None and not 1 <= size <= MOST_CELLS:
        raise InvalidInput("size_out_of_range", f"A re-read has 1 to {MOST_CELLS:,} cells.")
    if share_percent is not None and not 0 < share_percent <= 100:
        raise InvalidInput("share_out_of_range", "A share is above 0 and at most 100 percent.")
    images = drawable(reader, reviewed_from, reviewed_to)
    total = images.count()
    if not total:
        message = "No cell can be drawn: none in these days was reviewed beside a prediction and is new to this reader."
        raise InvalidInput("nothing_to_draw", message)
    wanted = size or ceil(total * (share_percent or 0) / 100)
    seed = secrets.token_hex(16)
    # One after the other: of a million reviewed cells only those that are drawn are held.
    drawn = drawn_in_order(images.order_by().values_list("pk", flat=True).iterator(), seed, min(wanted, MOST_CELLS))
    found: dict[UUID, UUID] = dict(images.filter(pk__in=drawn).values_list("pk", "current_review_id"))
    drawn = [image for image in drawn if image in found]
    with transaction.atomic():
        reread = BlindReread.objects.create(
            laboratory_id=reader.laboratory_id,  # type: ignore[misc]
            reader=reader,
            drawn_by=actor,
            reviewed_from=reviewed_from,
            reviewed_to=reviewed_to,
            drawn_from=total,
            size=len(drawn),
            seed=seed,
        )
        RereadCell.objects.bulk_create(
            RereadCell(reread=reread, position=position, image_id=image, review_id=found[image])
            for position, image in enumerate(drawn, start=1)
        )
        audit.record(
            action="reread_drawn",
            actor=actor,
            target=reread,
            reader=str(reader.pk),
            size=reread.size,
            drawn_from=reread.drawn_from,
        )
    return reread


def drawn_in_order(images: Iterable[UUID], seed: str, size: int) -> list[UUID]:
    """The first `size` image ids in the order of SHA-256(seed + id), both as text: anybody can draw them again."""
    return nsmallest(size, images, key=lambda image: sha256(f"{seed}{image}".encode()).digest())


def read_blind(*, actor: User, cell: RereadCell, label: str = "", unusable: bool = False) -> BlindReading:
    """Write what the reader says of the cell, for good. The last one closes the re-read.

    The same reading sent again is the one that is stored. Raises NotAllowed (not_allowed); InvalidInput
    (label_missing, unknown_cell_type); Conflict (reread_closed, already_read).
    """
    require(actor, Verb.REVIEW)
    if cell.reread.reader_id != actor.pk:
        raise NotAllowed("not_allowed", "Only the reader for whom these cells were drawn reads them.")
    if unusable:
        label = ""
    elif not label:
        raise InvalidInput("label_missing", "Say what the cell is, or that the picture is of no use.")
    elif label not in CELL_TYPES:
        raise InvalidInput("unknown_cell_type", f"There is no cell type of that name. Known: {', '.join(CELL_TYPES)}.")
    reading = BlindReading(cell=cell, reader=actor, label=label, unusable=unusable)
    try:
        with transaction.atomic():
            # Readings of one re-read come one by one, so that one of them is the last.
            reread = BlindReread.objects.select_for_update(no_key=True).get(pk=cell.reread_id)
            stored = BlindReading.objects.filter(cell=cell).first()
            if stored:
                return sent_before(stored, reading)
            if reread.closed_at:
                raise Conflict("reread_closed", "This re-read was closed meanwhile. Nothing was stored.")
            reading.save(force_insert=True)
            audit.record(
                action="blind_reading_made", actor=actor, target=reread, cell=str(cell.pk), reading=str(reading.pk)
            )
            if not cells_left(reread).exists():
                close(reread, actor=actor, why="complete")
    except IntegrityError as error:
        raise Conflict("already_read", "This cell is read already. Go on to the next.") from error
    return reading


def sent_before(stored: BlindReading, reading: BlindReading) -> BlindReading:
    """The stored one, where it says the same. Raises Conflict (already_read)."""
    if (stored.label, stored.unusable) != (reading.label, reading.unusable):
        raise Conflict("already_read", "This cell is read already, and a reading can't be changed. Go on to the next.")
    return stored


@transaction.atomic
def close_reread(*, actor: User, reread: BlindReread) -> BlindReread:
    """End a re-read before every cell is read; closed already, it stays as it is. Raises NotAllowed."""
    require(actor, Verb.AUDIT)
    if reread.laboratory_id != actor.laboratory_id:
        raise NotAllowed("not_allowed", "This re-read is another laboratory's.")
    close(BlindReread.objects.select_for_update(no_key=True).get(pk=reread.pk), actor=actor, why="early")
    reread.refresh_from_db(fields=["closed_at"])
    return reread


@transaction.atomic
def close_read_reread(*, actor: User, reread: BlindReread) -> None:
    """End a re-read of which nothing is left to read: what was left has been voided or removed since."""
    locked = BlindReread.objects.select_for_update(no_key=True).get(pk=reread.pk)
    if not cells_left(locked).exists():
        close(locked, actor=actor, why="complete")
    reread.refresh_from_db(fields=["closed_at"])


def close(reread: BlindReread, *, actor: User, why: str) -> None:
    if BlindReread.objects.filter(pk=reread.pk, closed_at=None).update(closed_at=timezone.now()):
        audit.record(action="reread_closed", actor=actor, target=reread, why=why)


def record_picture(*, actor: User, cell: RereadCell) -> None:
    """Note that the reader was shown the picture."""
    audit.record(action="blind_picture_viewed", actor=actor, target=cell.image, reread=str(cell.reread_id))
