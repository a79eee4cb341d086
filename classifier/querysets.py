"""Reads: who sees what, what can be claimed, how the queue stands."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.db.models import Count, Min, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, Concat, Lower, Now
from django.utils import timezone

from accounts.models import User
from accounts.roles import Verb
from classifier.number_key import LAST, NumberKey

if TYPE_CHECKING:
    from classifier.models import Batch, Case, CellImage  # noqa: F401


def visible_to(user: User, laboratory: str, case: str = "") -> Q:
    """The one place where laboratories are kept apart. `laboratory` is the path from the row to its laboratory.

    `case`, the path to its case, is given where one row is opened to be read on a page: then a case of another
    laboratory counts as well while the user has emergency access to it. Lists, searches and the API never give it.
    """
    if user.laboratory_id is None or not user.may(Verb.SEE):
        return Q(pk__in=[])
    own = Q(**{laboratory: user.laboratory_id})
    if not case or not user.may(Verb.EMERGENCY):
        return own
    # Part of the same statement, by the database's clock: it costs no query, and ends on time or before.
    return own | Q(**{f"{case}__in": user.emergency_accesses.filter(expires_at__gt=Now(), end=None).values("case")})


def claim_is_over() -> Q:
    """A claim that has expired by the database's clock, or that lasts longer than any claim may.

    The second is one from before that clock was set back: waiting for it would take as long as the clock was wrong.
    """
    longest = Now() + 2 * timedelta(seconds=settings.CLAIM_SECONDS)
    return Q(claim_expires_at__lt=Now()) | Q(claim_expires_at__gt=longest)


class CaseQuerySet(models.QuerySet["Case"]):
    def visible_to(self, user: User) -> "CaseQuerySet":
        return self.filter(visible_to(user, "laboratory"))

    def opened_to(self, user: User) -> "CaseQuerySet":
        """What `visible_to` finds, and what the user has emergency access to: to open one case and read it."""
        return self.filter(visible_to(user, "laboratory", case="pk"))

    def numbered(self, number: str) -> "CaseQuerySet":
        """Those of that accession number, in any letter case: one in a laboratory, by the index that makes it so."""
        return self.alias(number_key=NumberKey("accession_number")).filter(number_key=Lower(Value(number)))

    def number_begins(self, text: str) -> "CaseQuerySet":
        """Those whose accession number begins so, in any letter case: a part of that index."""
        begin: Any = Lower(Value(text))
        return self.alias(number_key=NumberKey("accession_number")).filter(
            number_key__gte=begin, number_key__lte=Concat(begin, Value(LAST))
        )

    def with_counts(self) -> "CaseQuerySet":
        """Adds `images_total`, `images_waiting` and `images_failed`."""
        return self.annotate(
            images_total=self._images_counted(),
            images_waiting=self._images_counted(status__in=["queued", "claimed"]),
            images_failed=self._images_counted(status="failed"),
        )

    def _images_counted(self, **conditions: Any) -> Coalesce:
        # A subquery for each row that is shown, not a join over all that are not.
        images: models.Manager[Any] = self.model._meta.get_field("images").related_model.objects  # type: ignore[union-attr]
        own = images.filter(case=OuterRef("pk"), void=None, **conditions).order_by().values("case")
        return Coalesce(Subquery(own.annotate(count=Count("pk")).values("count")), 0)


@dataclass(frozen=True)
class QueueState:
    """How many images wait, for how long the oldest has, and how many were classified in the last minute."""

    waiting: int
    oldest_age: timedelta | None
    classified_last_minute: int


class BatchQuerySet(models.QuerySet["Batch"]):
    def visible_to(self, user: User) -> "BatchQuerySet":
        return self.filter(visible_to(user, "laboratory"))

    def newest_first(self) -> "BatchQuerySet":
        return self.order_by("-submitted_at", "-id")

    def unchecked(self) -> "BatchQuerySet":
        """Archives that are still to be looked at and that nobody holds, the one that has come least far first."""
        free = Q(claim_token=None) | claim_is_over()
        open_ones = self.filter(finished_at=None, cancelled_at=None, checked_at=None).exclude(archive="")
        return open_ones.filter(free).order_by("members_checked", "submitted_at", "id")

    def abandoned(self) -> "BatchQuerySet":
        """Folders to which nobody adds files any longer."""
        open_ones = self.filter(finished_at=None, cancelled_at=None, checked_at=None, archive="")
        return open_ones.filter(Q(claim_token=None) | Q(claim_expires_at__lt=Now()))


class CellImageQuerySet(models.QuerySet["CellImage"]):
    def visible_to(self, user: User) -> "CellImageQuerySet":
        return self.filter(visible_to(user, "laboratory"))

    def opened_to(self, user: User) -> "CellImageQuerySet":
        """What `visible_to` finds, and images of a case with emergency access: to open one image and see it."""
        return self.filter(visible_to(user, "laboratory", case="case"))

    def with_predictions(self) -> "CellImageQuerySet":
        """With everything that a card or a full answer shows, in a fixed number of queries."""
        return self.select_related("case", "uploaded_by", "current_review__reader", "void").prefetch_related(
            "predictions__model_version"
        )

    def newest_first(self) -> "CellImageQuerySet":
        return self.order_by("-uploaded_at", "-id")

    def same_picture_elsewhere(self, image: "CellImage") -> "CellImageQuerySet":
        """The same pixels in another case: one of the two may belong to another patient."""
        return self.filter(pixels_sha256=image.pixels_sha256).exclude(case=image.case_id)

    def waiting(self) -> "CellImageQuerySet":
        return self.filter(status__in=["queued", "claimed"])

    def claimable(self) -> "CellImageQuerySet":
        """What waits for a worker, the next one first. Nothing of a batch that is checked, paused or cancelled."""
        return self.filter(status="queued", on_hold=False).order_by("priority", "turn", "queued_at", "id")

    def expired(self) -> "CellImageQuerySet":
        """What a worker has held for longer than it may, by the database's clock."""
        # What is claimed first: asked for them in their order, SQLite would read every image to spare the sorting.
        claimed = self.model.objects.filter(status="claimed").order_by().values("pk")
        return self.filter(claim_is_over(), status="claimed", pk__in=claimed)

    def queue_state(self) -> QueueState:
        waiting = self.waiting().filter(on_hold=False).aggregate(count=Count("pk"), oldest=Min("queued_at"))
        now = timezone.now()
        return QueueState(
            waiting=waiting["count"],
            oldest_age=max(now - waiting["oldest"], timedelta(0)) if waiting["oldest"] else None,
            classified_last_minute=self.filter(classified_at__gt=now - timedelta(minutes=1)).count(),
        )
