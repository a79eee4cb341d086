"""Counts the images of cases for their differentials: each image once, as it stands now.

A reviewed image counts under the final label of the review that counts; one that is only classified, under what the
newest prediction says; void images not at all. The database counts: a case of 5,000 images costs one query.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from django.db import models

from classifier.differential import Blocker, Differential, Tally, differential
from classifier.laboratory_settings import rules_of
from classifier.models import Case, CaseStatus, CellImage, ImageStatus, LaboratorySettings, Prediction


@dataclass
class CountedCase:
    """A tally on its way, and the model versions behind what it counts as pre-classified."""

    reviewed: dict[str, int] = field(default_factory=dict)
    pre_classified: dict[str, int] = field(default_factory=dict)
    unidentified: int = 0
    unusable: int = 0
    queued: int = 0
    failed: int = 0
    model_ids: set[UUID] = field(default_factory=set)

    def add(self, row: dict[str, Any]) -> None:
        """Add a group of `n` images of the same status, final label and newest prediction."""
        n = row["n"]
        match row["status"]:
            case ImageStatus.REVIEWED if row["current_review__final_label"]:
                label = row["current_review__final_label"]
                self.reviewed[label] = self.reviewed.get(label, 0) + n
            case ImageStatus.REVIEWED:
                self.unusable += n
            case ImageStatus.FAILED:
                self.failed += n
            case ImageStatus.CLASSIFIED if row["label"]:
                self.pre_classified[row["label"]] = self.pre_classified.get(row["label"], 0) + n
                if row.get("model"):
                    self.model_ids.add(row["model"])
            case ImageStatus.CLASSIFIED:
                self.unidentified += n
            case _:
                self.queued += n

    @property
    def tally(self) -> Tally:
        return Tally(
            reviewed=self.reviewed,
            pre_classified=self.pre_classified,
            unreviewed=sum(self.pre_classified.values()),
            unidentified=self.unidentified,
            unusable=self.unusable,
            queued=self.queued,
            failed=self.failed,
        )


def count_of(case: Case) -> CountedCase:
    """The images of a case, counted, with the model versions behind them; one query."""
    counted = CountedCase()
    for row in _groups(CellImage.objects.filter(case=case), model=_newest("model_version", models.UUIDField())):
        counted.add(row)
    return counted


def tally_of(case: Case) -> Tally:
    """The tally of a case; one query."""
    return count_of(case).tally


def tallies_of(cases: Iterable[Case]) -> dict[UUID, Tally]:
    """The tallies of a page of cases by their ids, those without an image too; one query."""
    counted = {case.pk: CountedCase() for case in cases}
    if counted:
        for row in _groups(CellImage.objects.filter(case__in=list(counted))):
            counted[row["case_id"]].add(row)
    return {case_id: count.tally for case_id, count in counted.items()}


def differential_of(case: Case, tally: Tally, settings: LaboratorySettings) -> Differential:
    """The differential of a case by its tally and the laboratory's settings; no query. A void case says so first."""
    wbc = None if case.wbc_value is None else float(case.wbc_value)
    counted = differential(tally, rules_of(settings), wbc)
    if case.status != CaseStatus.VOID:
        return counted
    void = Blocker("case_void", 0, "The case is void: it was entered in error, and nothing of it counts.")
    return replace(counted, blocked_by=(void, *counted.blocked_by))


def _newest(column: str, kind: models.Field) -> models.Case:
    """A column of the newest prediction, where that is what the image counts by."""
    predictions = Prediction.objects.filter(image=models.OuterRef("pk")).order_by("-created_at", "-id")
    then = models.Subquery(predictions.values(column)[:1])
    return models.Case(models.When(status=ImageStatus.CLASSIFIED, then=then), output_field=kind)


def _groups(images: models.QuerySet[CellImage], **also: models.Case) -> Iterable[dict[str, Any]]:
    """Groups of `n` images that count alike, void ones left out."""
    said = {"label": _newest("label", models.CharField()), **also}
    counting = images.filter(void=None).order_by().annotate(**said)
    names = ("case_id", "status", "current_review__final_label", *said)
    groups: Iterable[dict[str, Any]] = counting.values(*names).annotate(n=models.Count("pk"))
    return groups
