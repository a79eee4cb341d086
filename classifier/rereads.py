"""Reads of blind re-reads: what can be drawn, what is left to read, and what was read beside what was said before."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone

from accounts.models import User
from accounts.roles import Verb
from classifier.models import BlindReading, BlindReread, CaseStatus, CellImage, ImageStatus, RereadCell, Verdict
from classifier.querysets import CellImageQuerySet, visible_to
from classifier.reread_statistics import ReadTwice


def rereads_for(user: User) -> QuerySet[BlindReread]:
    """One's own; for an auditor, all of the laboratory. Nobody else sees that there is one."""
    own = BlindReread.objects.filter(visible_to(user, "laboratory"))
    return own if user.may(Verb.AUDIT) else own.filter(reader=user)


def waiting_for(user: User) -> QuerySet[BlindReread]:
    """The open ones that the user is to read, the oldest first."""
    if not user.may(Verb.REVIEW):
        return BlindReread.objects.none()
    return rereads_for(user).filter(reader=user, closed_at=None).order_by("drawn_at", "id")


def drawable(reader: User, reviewed_from: date | None = None, reviewed_to: date | None = None) -> CellImageQuerySet:
    """The cells that can be drawn for the reader: confirmed or corrected beside a prediction, void in no way, with a
    picture, and not drawn for this reader before. The days are those of the current time zone, both included.
    """
    before = RereadCell.objects.filter(reread__reader=reader).values("image")
    images = CellImage.objects.filter(
        case__laboratory=reader.laboratory_id,
        status=ImageStatus.REVIEWED,
        current_review__verdict__in=[Verdict.CONFIRMED, Verdict.CORRECTED],
        current_review__prediction__isnull=False,
        void=None,
        removed_picture=None,
    )
    images = images.exclude(case__status=CaseStatus.VOID).exclude(pk__in=before)
    if reviewed_from:
        images = images.filter(current_review__created_at__gte=midnight(reviewed_from))
    if reviewed_to:
        images = images.filter(current_review__created_at__lt=midnight(reviewed_to + timedelta(days=1)))
    return images


def midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def still_there(reread: BlindReread) -> QuerySet[RereadCell]:
    """The drawn cells without those that were voided, or whose picture was removed, since they were drawn."""
    cells = RereadCell.objects.filter(reread=reread, image__void=None, image__removed_picture=None)
    return cells.exclude(image__case__status=CaseStatus.VOID)


def cells_left(reread: BlindReread) -> QuerySet[RereadCell]:
    """What is to be read yet, in the order of the draw."""
    return still_there(reread).filter(reading=None).order_by("position")


@dataclass(frozen=True)
class Progress:
    """`read` of `size` drawn cells; `gone` were voided or removed before they were read."""

    size: int
    read: int
    left: int

    @property
    def gone(self) -> int:
        return self.size - self.read - self.left


def progress_of(reread: BlindReread) -> Progress:
    """Two queries."""
    return Progress(reread.size, BlindReading.objects.filter(cell__reread=reread).count(), cells_left(reread).count())


def own_count(reread: BlindReread) -> int:
    """How many of the drawn cells the reader had reviewed in the first place."""
    return RereadCell.objects.filter(reread=reread, review__reader=reread.reader_id).count()


def with_counts(rereads: QuerySet[BlindReread]) -> QuerySet[BlindReread]:
    """With `read`, and `own`: cells that the reader had reviewed in the first place."""
    own = Q(cells__review__reader=F("reader"))
    return rereads.annotate(read=Count("cells__reading"), own=Count("cells", filter=own))


def read_twice(reread: BlindReread) -> list[ReadTwice]:
    """What was read, beside the review and the model's answer of the draw; void cells left out. One query."""
    readings = BlindReading.objects.filter(cell__in=still_there(reread)).order_by("cell__position")
    rows = readings.values_list(
        "label", "cell__review__final_label", "cell__review__prediction__label", "cell__review__reader"
    )
    return [
        ReadTwice(blind=blind, sighted=sighted, model=model or "", own=who == reread.reader_id)
        for blind, sighted, model, who in rows
    ]
