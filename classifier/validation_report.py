"""Validation in a box: what the model says of pictures whose cell types the sender knows (`labels.csv`).

Only the model's own class counts, never a review, which was made with the model's word in sight. Each image counts
once. Abstentions, failures and refused files stand apart: they are neither right nor wrong.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import OuterRef, Subquery

from classifier.batches import ACCEPTED
from classifier.binomial import limits
from classifier.charts import Axis, MatrixRow, Whisker, axis_for, matrix_rows
from classifier.differential import POOLED
from classifier.kappa import Kappa, kappa_of
from classifier.models import Batch, BatchMember, ImageStatus, Prediction
from ml.labels import CELL_TYPES


@dataclass(frozen=True)
class LabelAccuracy:
    """The pictures of one true type: how many the model answered, and how many of those rightly (fractions)."""

    label: str
    n: int
    answered: int
    right: int

    @property
    def share(self) -> float | None:
        return self.right / self.answered if self.answered else None

    @property
    def low(self) -> float:
        return limits(self.right, self.answered)[0]

    @property
    def high(self) -> float:
        return limits(self.right, self.answered)[1]


@dataclass(frozen=True)
class Validation:
    """Labelled pictures against the model. `confusion` is true -> said -> n, of the answered ones only."""

    labelled: int
    waiting: int
    abstained: int
    failed: int
    refused: int
    confusion: Mapping[str, Mapping[str, int]]
    asked: Mapping[str, int]
    kappa: Kappa | None

    @property
    def total(self) -> LabelAccuracy:
        right = sum(counts.get(true, 0) for true, counts in self.confusion.items())
        return LabelAccuracy("", self.labelled, sum(sum(counts.values()) for counts in self.confusion.values()), right)

    @property
    def per_label(self) -> list[LabelAccuracy]:
        rows = []
        for label in CELL_TYPES:
            if label in self.asked:
                counts = self.confusion.get(label, {})
                rows.append(LabelAccuracy(label, self.asked[label], sum(counts.values()), counts.get(label, 0)))
        return rows

    @property
    def axis(self) -> Axis:
        return axis_for([row.low for row in [*self.per_label, self.total] if row.answered])

    @property
    def lines(self) -> list[tuple[LabelAccuracy, Whisker | None]]:
        """What is drawn: all together, then each type, on one axis."""
        axis = self.axis
        return [
            (row, Whisker("own", row.label, row.share, row.low, row.high, axis) if row.share is not None else None)
            for row in [self.total, *self.per_label]
        ]

    @property
    def said(self) -> list[str]:
        """The types of the matrix, true or said, in the usual order."""
        found = set(self.confusion) | {said for counts in self.confusion.values() for said in counts}
        return [label for label in CELL_TYPES if label in found]

    @property
    def matrix(self) -> list[MatrixRow]:
        return matrix_rows(self.confusion, self.said)

    def as_json(self) -> dict[str, Any]:
        total = self.total
        return {
            "labelled": self.labelled,
            "waiting": self.waiting,
            "abstained": self.abstained,
            "failed": self.failed,
            "refused": self.refused,
            "answered": total.answered,
            "right": total.right,
            "accuracy": total.share,
            "accuracy_low": total.low if total.answered else None,
            "accuracy_high": total.high if total.answered else None,
            "kappa": None if self.kappa is None else vars(self.kappa),
            "per_label": [
                {
                    "label": row.label,
                    "n": row.n,
                    "answered": row.answered,
                    "right": row.right,
                    "accuracy": row.share,
                    "low": row.low if row.answered else None,
                    "high": row.high if row.answered else None,
                }
                for row in self.per_label
            ],
            "confusion": {true: dict(counts) for true, counts in self.confusion.items()},
        }


def validation_of(batch: Batch) -> Validation | None:
    """What is known so far of the batch's labelled pictures; None where nothing is labelled. At most two queries."""
    newest = Prediction.objects.filter(image=OuterRef("image")).order_by("-created_at", "-id")
    labelled = BatchMember.objects.filter(batch=batch).exclude(label="").order_by("number")
    rows = list(
        labelled.annotate(
            said=Subquery(newest.values("label")[:1]), knows=Subquery(newest.values("model_version__labels")[:1])
        ).values_list("label", "code", "image_id", "image__status", "image__void", "said", "knows")
    )
    if not rows:
        return None
    seen: set[Any] = set()
    outcomes: list[tuple[str, str | None]] = []
    counts: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for label, code, image, status, void, said, knows in rows:
        if code not in ACCEPTED:
            counts["refused"] += 1
        elif image not in seen and void is None:
            seen.add(image)
            true = known_label(label, knows or [])
            asked[true] += 1
            kind = kind_of(status, said)
            counts[kind] += 1
            if kind == "answered":
                outcomes.append((true, said))
    confusion: dict[str, dict[str, int]] = {}
    for (true, answer), n in sorted(Counter(outcomes).items()):
        confusion.setdefault(true, {})[str(answer)] = n
    return Validation(
        labelled=sum(asked.values()),
        waiting=counts["waiting"],
        abstained=counts["abstained"],
        failed=counts["failed"],
        refused=counts["refused"],
        confusion=confusion,
        asked=asked,
        kappa=kappa_of(confusion),
    )


def kind_of(status: str, said: str | None) -> str:
    if status in (ImageStatus.QUEUED, ImageStatus.CLAIMED):
        return "waiting"
    if said is None or status == ImageStatus.FAILED:
        return "failed"
    return "answered" if said else "abstained"


def known_label(label: str, knows: Iterable[str]) -> str:
    """The label as the model can say it: what it does not tell apart is pooled as in the differential."""
    names = set(knows)
    pooled = POOLED.get(label, label)
    return pooled if names and label not in names and pooled in names else label
