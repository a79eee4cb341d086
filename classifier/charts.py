"""The geometry of the charts of the model card. The templates draw it as SVG: attributes only, since the pages' policy
allows no inline style, and beside each chart stand its numbers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MATRIX_SHADES = 10
FEW = 10


@dataclass(frozen=True)
class Axis:
    """A scale of fractions from `low` to 1, in percent of a chart's width."""

    low: float

    def place(self, fraction: float) -> str:
        """`12.5%`: how far from the left a fraction stands."""
        share = (min(1.0, max(self.low, fraction)) - self.low) / (1 - self.low)
        return f"{100 * share:.2f}%"

    @property
    def ticks(self) -> list[tuple[str, str]]:
        """(place, words) of every tenth."""
        tenths = range(round(10 * self.low), 11)
        return [(self.place(tenth / 10), f"{10 * tenth} %") for tenth in tenths]


def axis_for(fractions: Iterable[float | None]) -> Axis:
    """An axis that begins at the tenth below the least fraction, and not above one half."""
    least = min((fraction for fraction in fractions if fraction is not None), default=0.0)
    return Axis(min(0.5, math.floor(10 * least) / 10))


@dataclass(frozen=True)
class Whisker:
    """A dot with its interval on an axis. `kind` (own, answered, published, seed) has a shape of its own."""

    kind: str
    name: str
    value: float
    low: float | None
    high: float | None
    axis: Axis

    @property
    def x(self) -> str:
        return self.axis.place(self.value)

    @property
    def x_low(self) -> str | None:
        return None if self.low is None else self.axis.place(self.low)

    @property
    def x_high(self) -> str | None:
        return None if self.high is None else self.axis.place(self.high)


@dataclass(frozen=True)
class MatrixCell:
    """How many pictures of a true type were called `said`: the count, its share of the row, a shade from 0 to 10."""

    said: str
    n: int
    share: float
    right: bool

    @property
    def shade(self) -> int:
        return math.ceil(self.share * MATRIX_SHADES)


@dataclass(frozen=True)
class MatrixRow:
    """The pictures of one true type."""

    true: str
    n: int
    cells: list[MatrixCell]


def matrix_rows(confusion: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> list[MatrixRow]:
    """The rows of a confusion matrix (true -> said -> n) in the order of `labels`, types that do not occur left out."""
    rows = []
    for true in [label for label in labels if label in confusion]:
        counts = confusion[true]
        total = sum(counts.values())
        cells = [
            MatrixCell(said, counts.get(said, 0), counts.get(said, 0) / max(1, total), said == true) for said in labels
        ]
        rows.append(MatrixRow(true, total, cells))
    return rows


@dataclass(frozen=True)
class Point:
    """A bin of the reliability diagram, in its units. `on_line` is where an honest model would have its `y`.

    `few` marks a bin of fewer than 10 pictures.
    """

    x: float
    y: float
    on_line: float
    radius: float
    few: bool


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram in a box of `width` x `height` units, with the plot between its edges."""

    points: list[Point]
    ticks: list[tuple[float, float, str]]
    width: int = 340
    height: int = 316
    left: int = 48
    top: int = 8
    side: int = 264

    @property
    def right(self) -> int:
        return self.left + self.side

    @property
    def bottom(self) -> int:
        return self.top + self.side


def reliability_of(bins: Sequence[Mapping[str, Any]]) -> Reliability:
    """Place the bins (n, confidence, accuracy); the area of a dot grows with its share of the pictures."""
    empty = Reliability([], [])
    side, left, bottom = empty.side, empty.left, empty.bottom
    filled = [part for part in bins if part["n"]]
    most = max((part["n"] for part in filled), default=1)
    points = [
        Point(
            x=round(left + side * part["confidence"], 1),
            y=round(bottom - side * part["accuracy"], 1),
            on_line=round(bottom - side * part["confidence"], 1),
            radius=round(2.5 + 6.5 * math.sqrt(part["n"] / most), 1),
            few=part["n"] < FEW,
        )
        for part in filled
    ]
    ticks = [(left + side * fifth / 5, bottom - side * fifth / 5, f"{20 * fifth}") for fifth in range(6)]
    return Reliability(points, ticks)
