"""How long a laboratory keeps its pictures, what is on hold, what was removed and what was erased. Reads only."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Max, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils.crypto import salted_hmac

from accounts.models import AuditEvent
from classifier.case_transitions import SIGNED
from classifier.errors import Gone
from classifier.models import (
    Case,
    CaseStatus,
    CellImage,
    ImageStatus,
    LegalHold,
    PseudonymErasure,
    RemovedPicture,
    Report,
    RetentionRule,
)
from classifier.querysets import CaseQuerySet

LEAST_DAYS, MOST_DAYS = 30, 36_500
# A rule that was set by mistake can be taken back before it has removed anything.
GRACE = timedelta(hours=24)
ERASED = "pseudonym_erased"
# What a worker may still hold or take keeps its picture. What is on hold in a case that is signed or void is taken by
# nobody: it is void itself, as by cancelling its batch, or its batch can't be resumed.
NO_WORKER_TAKES = Q(status__in=(ImageStatus.CLASSIFIED, ImageStatus.REVIEWED, ImageStatus.FAILED)) | Q(
    status=ImageStatus.QUEUED, on_hold=True
)


def rule_of(laboratory_id: UUID) -> RetentionRule | None:
    """The rule that counts; None where none was ever set, and then everything is kept."""
    return RetentionRule.objects.filter(laboratory=laboratory_id).order_by("-version").first()


def rules_in_force(now: datetime) -> list[RetentionRule]:
    """The newest rule of each laboratory, where it removes anything and its first day is over."""
    newest = RetentionRule.objects.filter(laboratory=OuterRef("laboratory")).order_by("-version").values("pk")[:1]
    rules = RetentionRule.objects.filter(pk=Subquery(newest), keep_days__isnull=False, at__lte=now - GRACE)
    return list(rules.select_related("laboratory").order_by("at"))


def newest_hold(field: str) -> Subquery:
    return Subquery(LegalHold.objects.filter(case=OuterRef("pk")).order_by("-version").values(field)[:1])


def cases_on_hold(laboratory_id: UUID) -> CaseQuerySet:
    # What was ever on hold comes first: it is little.
    ever = LegalHold.objects.filter(holds=True, case__laboratory=laboratory_id).order_by().values("case")
    cases = Case.objects.filter(laboratory=laboratory_id, pk__in=ever)
    return cases.annotate(hold=newest_hold("holds")).filter(hold=True)


def hold_of(case: Case) -> LegalHold | None:
    """The hold that the case is under now, if any."""
    newest = LegalHold.objects.filter(case=case).select_related("by").order_by("-version").first()
    return newest if newest and newest.holds else None


def due_pictures(
    laboratory_id: UUID, keep_days: int, now: datetime, case_id: UUID | None = None
) -> QuerySet[CellImage]:
    """The images whose pictures a rule of so many days would remove now: of cases that were signed (the newest report
    counts) or voided longer ago, and that are not on hold or being amended. With `case_id` only that case is looked at.
    """
    before = now - timedelta(days=keep_days)
    newest_report = Report.objects.filter(case=OuterRef("pk")).order_by("-version").values("signed_at")[:1]
    # As the index has it; a case is opened before it is signed or voided.
    may_be_due = ~Q(status=CaseStatus.OPEN) & ~Q(status=CaseStatus.IN_REVIEW)
    own = Case.objects.filter(may_be_due, laboratory=laboratory_id, emptied_at=None, opened_at__lt=before)
    cases = (
        (own.filter(pk=case_id) if case_id else own)
        .annotate(signed_at=Subquery(newest_report), hold=newest_hold("holds"))
        .filter(Q(status__in=SIGNED, signed_at__lt=before) | Q(status=CaseStatus.VOID, void__at__lt=before))
        .filter(Q(hold=None) | Q(hold=False))
    )
    images = CellImage.objects.filter(NO_WORKER_TAKES, case__in=cases.values("pk"), removed_picture=None)
    # Both are narrowed: SQLite would look at every case for a condition on the images alone, and the other way round.
    return images.filter(case=case_id) if case_id else images


@dataclass(frozen=True)
class Consequence:
    """What a rule would remove now."""

    pictures: int
    cases: int
    keep_days: int | None


def consequence_of(laboratory_id: UUID, keep_days: int | None, now: datetime) -> Consequence:
    if keep_days is None:
        return Consequence(0, 0, None)
    due = due_pictures(laboratory_id, keep_days, now)
    counts = due.aggregate(pictures=Count("pk"), cases=Count("case", distinct=True))
    return Consequence(counts["pictures"], counts["cases"], keep_days)


@dataclass(frozen=True)
class Removed:
    """What a laboratory's rules have removed so far."""

    pictures: int
    latest_at: datetime | None


def removed_of(laboratory_id: UUID) -> Removed:
    removed = RemovedPicture.objects.filter(rule__laboratory=laboratory_id)
    return Removed(*removed.aggregate(count=Count("pk"), latest=Max("at")).values())


def with_keeping(cases: CaseQuerySet, case_id: UUID) -> CaseQuerySet:
    """Adds to that one case what its page says of keeping: `on_hold` with `hold_reason`, `pictures_removed` with
    `pictures_removed_at`, and `pseudonym_erased_at`.
    """
    removed = RemovedPicture.objects.filter(image__case=OuterRef("pk")).order_by().values("image__case")
    erased = AuditEvent.objects.filter(target_type="case", target_id=str(case_id), action=ERASED).order_by("-at")
    return cases.annotate(
        on_hold=newest_hold("holds"),
        hold_reason=newest_hold("reason"),
        pictures_removed=Coalesce(Subquery(removed.annotate(n=Count("pk")).values("n")), 0),
        pictures_removed_at=Subquery(removed.annotate(latest=Max("at")).values("latest")),
        pseudonym_erased_at=Subquery(erased.values("at")[:1]),
    )


def require_kept(image: CellImage) -> None:
    """Raises Gone (picture_removed) where a rule has removed the picture, whether or not its file is gone already."""
    removed = getattr(image, "removed_picture", None)
    if removed is not None:
        day = f"{removed.at.day} {removed.at:%b %Y}"
        message = (
            f"The picture was removed on {day} under the laboratory's retention rule. What was said about it is kept."
        )
        raise Gone("picture_removed", message, day=day)


def digest_of(laboratory_id: UUID, pseudonym: str, *, key: str | None = None) -> str:
    """The keyed SHA-256 by which an erased pseudonym is recognised, and can't be found out without the key."""
    text = f"{laboratory_id}\n{pseudonym}"
    return salted_hmac("hematovision.erased pseudonym", text, secret=key, algorithm="sha256").hexdigest()


def erasures_of(laboratory_id: UUID, pseudonym: str) -> QuerySet[PseudonymErasure]:
    """The erasures of that very pseudonym, under the key of now and those of before; the newest first."""
    keys: list[Any] = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    digests = [digest_of(laboratory_id, pseudonym, key=key) for key in keys]
    return PseudonymErasure.objects.filter(laboratory=laboratory_id, digest__in=digests).order_by("-at")
