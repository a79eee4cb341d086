"""The geometry of the bars of a differential. The templates draw it as SVG: attributes only, colours by the classes
`cell-<slug>`. The numbers stand in the table beside it. Input are the rows of `Differential.as_json()`, so a live case
and a frozen report are drawn alike; percent is 0..100.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from classifier.differential import LEUKOCYTES, Tally, pooled
from ml.labels import display_name

UNIDENTIFIED = "unidentified"


@dataclass(frozen=True)
class PercentAxis:
    """A scale from 0 to `end` percent."""

    end: int

    def place(self, percent: float) -> str:
        """`12.50%`: how far from the left of the chart a share stands."""
        return f"{100 * min(self.end, max(0.0, percent)) / self.end:.2f}%"

    @property
    def ticks(self) -> list[tuple[str, int, str]]:
        """(place, percent, SVG text-anchor) of four to six round shares."""
        step = next(step for step in (5, 10, 20) if self.end / step <= 5)
        shares = range(0, self.end + 1, step)
        anchors = {0: "start", self.end: "end"}
        return [(self.place(share), share, anchors.get(share, "middle")) for share in shares]


def axis_of(rows: Sequence[Mapping[str, Any]]) -> PercentAxis:
    """The axis that holds every limit and range: it ends at the next ten, and not beyond 100."""
    furthest = max((row[key] or 0 for row in rows for key in ("percent", "high", "range_high")), default=0)
    return PercentAxis(min(100, max(10, 10 * math.ceil(furthest / 10))))


@dataclass(frozen=True)
class ShareBar:
    """A bar: the reviewed part from the left, the pre-classified part after it, the limits as a whisker and the
    reference range as a band behind. Places and widths are in percent of the chart's width; None where there is none.
    """

    label: str
    reviewed_width: str | None
    pre_classified_x: str
    pre_classified_width: str | None
    low_x: str | None
    high_x: str | None
    band_x: str | None
    band_width: str | None


@dataclass(frozen=True)
class ShareChart:
    axis: PercentAxis
    bars: list[ShareBar]


def chart_of(rows: Sequence[Mapping[str, Any]]) -> ShareChart:
    """The bars of the rows `cells` of a differential, in their order."""
    axis = axis_of(rows)
    return ShareChart(axis, [_bar(row, axis) for row in rows])


def _bar(row: Mapping[str, Any], axis: PercentAxis) -> ShareBar:
    percent = row["percent"] or 0.0
    reviewed = percent * row["reviewed"] / row["n"] if row["n"] else 0.0
    counted = row["percent"] is not None
    low, high = row["range_low"], row["range_high"]
    has_range = low is not None or high is not None
    band_from, band_to = low or 0.0, axis.end if high is None else high
    return ShareBar(
        label=row["label"],
        reviewed_width=axis.place(reviewed) if row["reviewed"] else None,
        pre_classified_x=axis.place(reviewed),
        pre_classified_width=axis.place(percent - reviewed) if row["pre_classified"] else None,
        low_x=axis.place(row["low"]) if counted else None,
        high_x=axis.place(row["high"]) if counted else None,
        band_x=axis.place(band_from) if has_range else None,
        band_width=axis.place(band_to - band_from) if has_range else None,
    )


@dataclass(frozen=True)
class Segment:
    """A part of the small bar of a whole case: `n` images from `x` on, both in percent of its width.

    `slug` is a leukocyte type, or `unidentified`.
    """

    slug: str
    n: int
    x: str
    width: str

    @property
    def name(self) -> str:
        return "Unidentified" if self.slug == UNIDENTIFIED else display_name(self.slug)


def stacked_bar(tally: Tally) -> list[Segment]:
    """The leukocytes of a case, reviewed or not, one type beside the other, and what is unidentified at the end."""
    reviewed, suggested = pooled(tally.reviewed), pooled(tally.pre_classified)
    counts = {slug: reviewed.get(slug, 0) + suggested.get(slug, 0) for slug in LEUKOCYTES}
    counts[UNIDENTIFIED] = tally.unidentified
    total = sum(counts.values())
    segments: list[Segment] = []
    before = 0
    for slug, n in counts.items():
        if n:
            segments.append(Segment(slug, n, f"{100 * before / total:.2f}%", f"{100 * n / total:.2f}%"))
            before += n
    return segments
