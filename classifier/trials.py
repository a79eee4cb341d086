"""Reads of trials: which images a trial is about, how far it is, and what would be different under the tried model.

A trial is about the images that had a prediction when it was asked for, compared with the newest prediction that they
had then; so its outcome stays the same whatever is classified or activated afterwards. Void images are left out.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery

from accounts.models import User
from classifier.differential import Differential, Rules, Tally, differential
from classifier.models import CaseStatus, CellImage, ModelTrial, Prediction, TrialPrediction
from classifier.querysets import CellImageQuerySet, visible_to

TRIAL_FAILURES: dict[str, str] = {
    "model_missing": "The files of this model version are missing, so it could not be tried. Tell your administrator.",
    "model_altered": "The files of this model version are not those that were registered, so it was not tried. Tell "
    "your administrator.",
    "model_incompatible": "This model version does not fit the installed software, so it could not be tried.",
    "trial_expired": "The trial was not finished within a day, so it was given up. Ask for it again.",
    "case_void": "The case was voided meanwhile, so the trial was given up.",
}
UNIDENTIFIED = ""


class TrialState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    FINISHED = "finished", "Finished"
    FAILED = "failed", "Came to nothing"


def trials_of(user: User) -> QuerySet[ModelTrial]:
    """The trials of the laboratory's cases, the newest first."""
    return ModelTrial.objects.filter(visible_to(user, "case__laboratory"))


def state_of(trial: ModelTrial) -> TrialState:
    if trial.finished_at is None:
        return TrialState.WAITING
    return TrialState.FAILED if trial.failure_code else TrialState.FINISHED


def failure_of(trial: ModelTrial) -> str:
    """The sentence of why a trial came to nothing; empty when it did not fail."""
    if not trial.failure_code:
        return ""
    # A code of a newer version, met after a roll-back, has no sentence here.
    return TRIAL_FAILURES.get(trial.failure_code, "The trial could not be finished. Ask for it again.")


def tried_images(trial: ModelTrial) -> CellImageQuerySet:
    """The images that the trial is about."""
    known_then = Prediction.objects.filter(image=OuterRef("pk"), created_at__lte=trial.requested_at)
    return CellImage.objects.filter(Exists(known_then), case=trial.case_id, void=None)


def not_tried_yet(trial: ModelTrial) -> CellImageQuerySet:
    """Those that the tried model has said nothing about yet, the oldest first."""
    said = TrialPrediction.objects.filter(trial=trial, image=OuterRef("pk"))
    return tried_images(trial).filter(~Exists(said)).order_by("uploaded_at", "id")


def compared(trial: ModelTrial) -> QuerySet[Any]:
    """The images that were tried, with `before` and `after` (labels, "" for unidentified) and both confidences."""
    then = Prediction.objects.filter(image=OuterRef("pk"), created_at__lte=trial.requested_at)
    newest = then.order_by("-created_at", "-id")
    said = TrialPrediction.objects.filter(trial=trial, image=OuterRef("pk")).exclude(conformal_set=[])
    return (
        tried_images(trial)
        .filter(Exists(said))
        .annotate(
            before=Subquery(newest.values("label")[:1]),
            before_confidence=Subquery(newest.values("confidence")[:1]),
            after=Subquery(said.values("label")[:1]),
            after_confidence=Subquery(said.values("confidence")[:1]),
            after_reason=Subquery(said.values("reason")[:1]),
        )
    )


def changed(trial: ModelTrial) -> QuerySet[Any]:
    """Those of `compared` whose label would be another one."""
    return compared(trial).exclude(before=F("after"))


@dataclass(frozen=True)
class Progress:
    """`tried` of `total` images; `unusable` of the tried ones could not be read or classified by the tried model."""

    tried: int
    total: int
    unusable: int


def progress_of(trial: ModelTrial) -> Progress:
    said = TrialPrediction.objects.filter(trial=trial, image=OuterRef("pk"))
    counts = tried_images(trial).aggregate(
        total=Count("pk"),
        tried=Count("pk", filter=Exists(said)),
        unusable=Count("pk", filter=Exists(said.filter(conformal_set=[]))),
    )
    return Progress(counts["tried"], counts["total"], counts["unusable"])


@dataclass(frozen=True)
class Agreement:
    """How often each of the two said what people said, on the images that people have reviewed with a class."""

    reviewed: int = 0
    before: int = 0
    after: int = 0


@dataclass(frozen=True)
class Comparison:
    """What would be different: `pairs` counts images by (label before, label after), "" for unidentified."""

    pairs: Counter[tuple[str, str]]
    agreement: Agreement

    @property
    def total(self) -> int:
        return self.pairs.total()

    @property
    def changed(self) -> int:
        return sum(n for (before, after), n in self.pairs.items() if before != after)

    @property
    def became_unidentified(self) -> int:
        return sum(n for (before, after), n in self.pairs.items() if before and not after)

    @property
    def became_identified(self) -> int:
        return sum(n for (before, after), n in self.pairs.items() if after and not before)

    @property
    def became_another(self) -> int:
        return self.changed - self.became_unidentified - self.became_identified

    def tally(self, side: int) -> Tally:
        """The images counted by the label of one side: 0 is before, 1 is after."""
        labels: Counter[str] = Counter()
        for pair, n in self.pairs.items():
            labels[pair[side]] += n
        unidentified = labels.pop(UNIDENTIFIED, 0)
        return Tally(reviewed={}, pre_classified=labels, unreviewed=labels.total(), unidentified=unidentified)

    def differentials(self, rules: Rules) -> tuple[Differential, Differential]:
        """The pre-classified differentials before and after, over the same images."""
        return differential(self.tally(0), rules), differential(self.tally(1), rules)


def comparisons_by(by: str, trials: QuerySet[ModelTrial]) -> dict[UUID, Comparison]:
    """The comparisons of trials, finished or not, added up by a column of theirs (`pk`, `model_version`); one query."""
    then = Prediction.objects.filter(image=OuterRef("image"), created_at__lte=OuterRef("trial__requested_at"))
    said = TrialPrediction.objects.filter(trial__in=trials, image__void=None).exclude(conformal_set=[])
    key = F("trial") if by == "pk" else F(f"trial__{by}")
    rows: Any = (
        said.order_by()
        .annotate(
            key=key,
            before=Subquery(then.order_by("-created_at", "-id").values("label")[:1]),
            final=F("image__current_review__final_label"),
        )
        .values("key", "before", "label", "final")
        .annotate(n=Count("pk"))
    )
    counted: dict[UUID, list[dict[str, Any]]] = {}
    for row in rows:
        counted.setdefault(row["key"], []).append(row)
    return {key: comparison_from(group) for key, group in counted.items()}


def comparison_of(trial: ModelTrial) -> Comparison:
    """The comparison of one trial, empty while nothing is tried; one query."""
    found = comparisons_by("pk", ModelTrial.objects.filter(pk=trial.pk))
    return found.get(trial.pk, Comparison(Counter(), Agreement()))


def latest_of_each_case(trials: QuerySet[ModelTrial]) -> QuerySet[ModelTrial]:
    """The finished ones of cases that are not void; of a case that was tried twice with a version only the newest."""
    finished = Q(finished_at__isnull=False, failure_code="")
    newer = ModelTrial.objects.filter(
        finished,
        case=OuterRef("case"),
        model_version=OuterRef("model_version"),
        requested_at__gt=OuterRef("requested_at"),
    )
    return trials.filter(finished).exclude(case__status=CaseStatus.VOID).exclude(Exists(newer))


def comparison_from(rows: Iterable[dict[str, Any]]) -> Comparison:
    """The comparison of groups of `n` images with the same label `before`, tried `label` and `final` label."""
    pairs: Counter[tuple[str, str]] = Counter()
    reviewed = right_before = right_after = 0
    for row in rows:
        pairs[row["before"], row["label"]] += row["n"]
        if final := row["final"]:
            reviewed += row["n"]
            right_before += row["n"] * (row["before"] == final)
            right_after += row["n"] * (row["label"] == final)
    return Comparison(pairs, Agreement(reviewed, right_before, right_after))
