"""Reads of batches: how far they are, how fast, what was refused, and a line a file for the results."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Min, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from classifier.models import (
    SAME_PICTURE,
    Batch,
    BatchMember,
    BatchState,
    CellImage,
    ImageStatus,
    Prediction,
)

RECENT = timedelta(seconds=60)
ACCEPTED = ("", SAME_PICTURE)
SHOWN_OF_A_GROUP = 100
RESULT_COLUMNS = (
    "file",
    "image_id",
    "status",
    "label",
    "suggestion",
    "confidence",
    "abstained",
    "reason_code",
    "verdict",
    "final_label",
    "model",
    "code",
    "message",
    "given_label",
)


@dataclass(frozen=True)
class BatchProgress:
    """What the rows of a batch say now. `total` = queued + classified + failed + void.

    `classified` includes reviewed; `refused` files and `duplicates` (the same picture again) became no image of their
    own. The rate is that of the last minute, of a finished batch its mean; null where nothing can be said.
    """

    total: int
    queued: int
    classified: int
    failed: int
    void: int
    refused: int
    duplicates: int
    images_per_second: float | None
    seconds_left: int | None

    @property
    def done(self) -> int:
        return self.classified + self.failed


def progress_of(batches: Sequence[Batch]) -> dict[UUID, BatchProgress]:
    """The progress of a page of batches, by their ids; two queries."""
    now = timezone.now()
    ids = [batch.pk for batch in batches]
    valid = Q(void=None)
    recent = Q(classified_at__gt=now - RECENT)
    images = CellImage.objects.filter(batch__in=ids).order_by().values("batch")
    counts: dict[UUID, Any] = {
        row["batch"]: row
        for row in images.annotate(
            total=Count("pk"),
            queued=Count("pk", filter=valid & Q(status__in=[ImageStatus.QUEUED, ImageStatus.CLAIMED])),
            classified=Count("pk", filter=valid & Q(status__in=[ImageStatus.CLASSIFIED, ImageStatus.REVIEWED])),
            failed=Count("pk", filter=valid & Q(status=ImageStatus.FAILED)),
            recent=Count("pk", filter=recent),
            since=Min("classified_at", filter=recent),
        )
    }
    members = BatchMember.objects.filter(batch__in=ids).order_by().values("batch")
    files: dict[UUID, Any] = {
        row["batch"]: row
        for row in members.annotate(
            refused=Count("pk", filter=~Q(code__in=ACCEPTED)), duplicates=Count("pk", filter=Q(code=SAME_PICTURE))
        )
    }
    return {batch.pk: _progress(batch, counts.get(batch.pk, {}), files.get(batch.pk, {}), now) for batch in batches}


def _progress(batch: Batch, counts: dict[str, Any], files: dict[str, Any], now: datetime) -> BatchProgress:
    total, queued = counts.get("total", 0), counts.get("queued", 0)
    classified, failed = counts.get("classified", 0), counts.get("failed", 0)
    rate = _rate(batch, counts, now)
    left: int | None = None
    if batch.state in (BatchState.FINISHED, BatchState.CANCELLED):
        left = 0
    elif rate and batch.state == BatchState.RUNNING:
        left = math.ceil(queued / rate)
    return BatchProgress(
        total=total,
        queued=queued,
        classified=classified,
        failed=failed,
        void=total - queued - classified - failed,
        refused=files.get("refused", 0),
        duplicates=files.get("duplicates", 0),
        images_per_second=None if rate is None else round(rate, 2),
        seconds_left=left,
    )


def _rate(batch: Batch, counts: dict[str, Any], now: datetime) -> float | None:
    """Images a second."""
    if batch.state == BatchState.FINISHED and batch.started_at and batch.finished_at:
        took = max((batch.finished_at - batch.started_at).total_seconds(), 1.0)
        done: int = counts.get("classified", 0)
        return done / took if done else None
    recent: int = counts.get("recent", 0)
    if batch.state != BatchState.RUNNING or recent < 2:
        return None
    seconds: float = (now - counts["since"]).total_seconds()
    return recent / max(seconds, 1.0)


def refused_members(batch: Batch) -> QuerySet[Any]:
    """The files that became no image, in the order in which they were sent."""
    refused: QuerySet[Any] = BatchMember.objects.filter(batch=batch).exclude(code__in=ACCEPTED).order_by("number")
    return refused


def refusals_of(batch: Batch) -> list[dict[str, str]]:
    """`{file, code, message}` of each of them."""
    rows = refused_members(batch).values_list("name", "code", "message")
    return [{"file": name, "code": code, "message": message} for name, code, message in rows]


@dataclass(frozen=True)
class RefusalGroup:
    """The files that were refused for one reason: how many, and the first of them with what was said of each."""

    code: str
    n: int
    message: str
    shown: list[tuple[str, str]]

    @property
    def more(self) -> int:
        return self.n - len(self.shown)


def refusal_groups(batch: Batch) -> list[RefusalGroup]:
    """The refusals by reason, the most frequent first; one query."""
    groups: dict[str, list[dict[str, str]]] = {}
    for refusal in refusals_of(batch):
        groups.setdefault(refusal["code"], []).append(refusal)
    return [
        RefusalGroup(
            code, len(rows), rows[0]["message"], [(row["file"], row["message"]) for row in rows[:SHOWN_OF_A_GROUP]]
        )
        for code, rows in sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    ]


def members_waiting(batch: Batch) -> int:
    """How many files show a picture that waits, also those whose picture another batch brought; one query."""
    waiting = BatchMember.objects.filter(batch=batch, image__status__in=[ImageStatus.QUEUED, ImageStatus.CLAIMED])
    return waiting.filter(image__void=None).count()


def result_rows(batch: Batch) -> Iterator[dict[str, Any]]:
    """A line a file, in the order in which they were sent; read as it is written, whatever the batch's size."""
    newest = Prediction.objects.filter(image=OuterRef("image")).order_by("-created_at", "-id")
    members = (
        BatchMember.objects.filter(batch=batch)
        .order_by("number")
        .annotate(
            said=Subquery(newest.values("label")[:1]),
            suggestion=Subquery(newest.values("suggestion")[:1]),
            confidence=Subquery(newest.values("confidence")[:1]),
            abstained=Subquery(newest.values("abstained")[:1]),
            reason_code=Subquery(newest.values("reason_code")[:1]),
            model_name=Subquery(newest.values("model_version__name")[:1]),
            model=Subquery(newest.values("model_version__version")[:1]),
        )
        .select_related("image__current_review", "image__void")
    )
    for member in members.iterator(chunk_size=500):
        yield {**_said_of(member), "file": member.name, "given_label": member.label}


def _said_of(member: Any) -> dict[str, Any]:
    image = member.image
    if image is None:
        return {"status": "refused", "code": member.code, "message": member.message}
    about: dict[str, Any] = {
        "image_id": str(image.pk),
        "status": "void" if image.is_void else image.status,
        "code": image.failure_code or member.code,
        "message": image.failure_message if image.failure_code else "",
    }
    # What waits again, or could not be classified, has no result: an older prediction is not one.
    if image.status in (ImageStatus.CLASSIFIED, ImageStatus.REVIEWED):
        about |= {
            "label": member.said,
            "suggestion": member.suggestion,
            "confidence": member.confidence,
            "abstained": None if member.abstained is None else str(bool(member.abstained)).lower(),
            "reason_code": member.reason_code,
            "model": f"{member.model_name} {member.model}" if member.model else None,
        }
    if image.current_review:
        about |= {"verdict": image.current_review.verdict, "final_label": image.current_review.final_label}
    return about
