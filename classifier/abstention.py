"""A laboratory may ask for more certainty than the model does: below its threshold, a class is a mere suggestion.

The threshold only ever adds abstentions. What the model itself has doubts about keeps the model's own reason.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import OuterRef, Subquery

from classifier.active_model import active_version, verified_card
from classifier.models import CaseStatus, CellImage, LaboratorySettings, ModelVersion, Prediction
from ml.errors import ModelUnavailable
from ml.labels import display_name
from ml.model_card import ModelCard

if TYPE_CHECKING:
    from ml.predictor import CellPrediction

BELOW_LABORATORY_THRESHOLD = "below_laboratory_threshold"
LATEST = 1000
SHOWN_THRESHOLDS = (0.85, 0.9, 0.95, 0.97, 0.99)


def threshold_of(laboratory: str) -> Subquery:
    """The newest threshold of a laboratory, a fraction or None; `laboratory` is the path from the row to it."""
    own = LaboratorySettings.objects.filter(laboratory=OuterRef(laboratory)).order_by("-version")
    return Subquery(own.values("abstain_below")[:1])


def thresholds_of(image_ids: Collection[UUID]) -> dict[UUID, float | None]:
    """The newest threshold of each image's laboratory, a fraction or None; one query, however many laboratories."""
    rows = CellImage.objects.filter(pk__in=image_ids).order_by()
    return dict(rows.values_list("pk", threshold_of("laboratory")))


def held_back(prediction: "CellPrediction", abstain_below: float | None) -> "CellPrediction":
    """The prediction as it counts in a laboratory: without its class where the confidence is below the threshold.

    The suggestion stays. The white cells of a field are held back one by one, under the same threshold.
    """
    if abstain_below is None:
        return prediction
    ranked = sorted(prediction.probabilities, key=lambda slug: -prediction.probabilities[slug])
    likely = {*prediction.conformal_set, *ranked[:2]}
    reason = doubt([slug for slug in ranked if slug in likely])
    leukocytes = tuple(
        replace(
            found,
            label=None,
            reason_code=BELOW_LABORATORY_THRESHOLD,
            reason=reason if len(prediction.leukocytes) == 1 else doubt([found.label]),
        )
        if found.label and found.confidence < abstain_below
        else found
        for found in prediction.leukocytes
    )
    if prediction.label is None or prediction.confidence >= abstain_below:
        return replace(prediction, leukocytes=leukocytes)
    return replace(
        prediction,
        label=None,
        abstained=True,
        reason_code=BELOW_LABORATORY_THRESHOLD,
        reason=reason,
        leukocytes=leukocytes,
    )


def doubt(slugs: Sequence[str]) -> str:
    """The sentence of an abstention that names what the cell could be, the most probable first."""
    *others, last = [display_name(slug).lower() for slug in slugs]
    named = f"{', '.join(others)} or {last}" if others else last
    return f"The model is not sure. It could be {named}. Please classify."


def least_confidence() -> float | None:
    """The confidence (a fraction) below which the active model itself gives no class; None without a usable model."""
    try:
        return verified_card(active_version()).least_confidence
    except ModelUnavailable:
        return None


@dataclass(frozen=True)
class LeftToPeople:
    """Under a threshold (a fraction), `more` of `n` cells that now get a class would be left to people."""

    threshold: float
    more: int
    n: int
    counts_now: bool = False

    @property
    def share(self) -> float:
        return self.more / self.n if self.n else 0.0


@dataclass(frozen=True)
class Effect:
    """What thresholds would do: counted on the laboratory's own latest cells, or read from the model's card.

    `source` is "" for the laboratory's own cells, else the card's name of the data set. The card's figures are sorted
    into bins, so they are upper bounds.
    """

    source: str
    rows: tuple[LeftToPeople, ...]

    @property
    def n(self) -> int:
        return self.rows[0].n


def effect_of_thresholds(laboratory_id: UUID, now: float | None) -> Effect | None:
    """What a threshold does to the latest cells of the laboratory, else to a data set of the active model's card."""
    try:
        version = active_version()
        card = verified_card(version)
    except ModelUnavailable:
        return None
    return effect_on_own_cells(laboratory_id, version, card, now) or effect_on_card(card)


def effect_on_own_cells(
    laboratory_id: UUID, version: ModelVersion, card: ModelCard, now: float | None
) -> Effect | None:
    counting = Prediction.objects.filter(laboratory=laboratory_id, image__void__image=None)
    latest = counting.exclude(image__case__status=CaseStatus.VOID).order_by("-created_at", "-id").values("pk")[:LATEST]
    said = Prediction.objects.filter(model_version=version, pk__in=latest).order_by()
    confidences = [
        confidence
        for confidence, label, code in said.values_list("confidence", "label", "reason_code")
        if label or code == BELOW_LABORATORY_THRESHOLD
    ]
    if not confidences:
        return None
    thresholds = {t for t in SHOWN_THRESHOLDS if t > card.least_confidence} | ({now} if now else set())
    rows = [
        LeftToPeople(t, sum(confidence < t for confidence in confidences), len(confidences), t == now)
        for t in sorted(thresholds)
    ]
    return Effect("", tuple(rows)) if rows else None


def effect_on_card(card: ModelCard) -> Effect | None:
    """By the first data set that the card describes bin by bin; the edges of the bins are the thresholds."""
    for name, figures in card.metrics.items():
        bins = [each for each in figures.get("reliability", ()) if each["high"] > card.least_confidence]
        total = sum(each["n"] for each in bins)
        rows, below = [], 0
        for each in bins[:-1]:
            below += each["n"]
            rows.append(LeftToPeople(each["high"], below, total))
        if rows and total:
            return Effect(name, tuple(rows))
    return None
