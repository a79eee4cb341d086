"""The differential: the share of each leukocyte type among the leukocytes counted. Pure; nothing is rounded in here.

Percent is 0..100, absolute counts are 10^9/L. Limits are exact 95 % limits: they cover the sampling of cells only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from classifier.binomial import limits

# What is counted under another name.
POOLED: Mapping[str, str] = {
    "band_neutrophil": "neutrophil",
    "promyelocyte": "immature_granulocyte",
    "myelocyte": "immature_granulocyte",
    "metamyelocyte": "immature_granulocyte",
}
LEUKOCYTES: tuple[str, ...] = (
    "neutrophil",
    "lymphocyte",
    "monocyte",
    "eosinophil",
    "basophil",
    "immature_granulocyte",
)
# Counted beside the leukocytes, never among them.
OUTSIDE: tuple[str, ...] = ("erythroblast", "platelet", "artefact", "smudge_cell")
PER_100_WBC = "erythroblast"

REVIEWED, PRE_CLASSIFIED, MIXED = "reviewed", "pre_classified", "mixed"


@dataclass(frozen=True)
class Tally:
    """The images of a case, counted. Void images are in none of the numbers.

    `reviewed` counts by final label, `pre_classified` by the model's label what nobody has reviewed (`unreviewed` in
    all); what the model abstained on, and nobody has reviewed, is only in `unidentified`.
    """

    reviewed: Mapping[str, int]
    pre_classified: Mapping[str, int]
    unreviewed: int = 0
    unidentified: int = 0
    unusable: int = 0
    queued: int = 0
    failed: int = 0

    @property
    def images(self) -> int:
        """How many images there are in all."""
        waiting = self.unidentified + self.unusable + self.queued + self.failed
        return sum(self.reviewed.values()) + self.unreviewed + waiting


@dataclass(frozen=True)
class CellTypeRule:
    """What a laboratory lays down for a cell type: its reference range in percent of leukocytes, and its LOINC code."""

    slug: str
    range_low: float | None
    range_high: float | None
    loinc: str

    @property
    def has_range(self) -> bool:
        return self.range_low is not None or self.range_high is not None


@dataclass(frozen=True)
class Rules:
    """The laboratory's rules, in its order of cell types; `settings_version` says which version of them."""

    settings_version: int
    target_count: int
    cell_types: tuple[CellTypeRule, ...]


@dataclass(frozen=True)
class Absolute:
    """A count in 10^9/L: the share times the analyser's WBC, with the limits of the share."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


@dataclass(frozen=True)
class CellShare:
    """A row: `n` cells of a type among the leukocytes. `percent`, `low` and `high` are None while none is counted."""

    label: str
    reviewed: int
    pre_classified: int
    percent: float | None
    low: float | None
    high: float | None
    range_low: float | None
    range_high: float | None
    absolute: Absolute | None

    @property
    def n(self) -> int:
        return self.reviewed + self.pre_classified

    @property
    def flag(self) -> str | None:
        """H above the reference range, L below it, by the unrounded share; None within it and where there is none."""
        if self.percent is None:
            return None
        if self.range_high is not None and self.percent > self.range_high:
            return "H"
        if self.range_low is not None and self.percent < self.range_low:
            return "L"
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "n": self.n,
            "reviewed": self.reviewed,
            "pre_classified": self.pre_classified,
            "percent": rounded(self.percent),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "range_low": self.range_low,
            "range_high": self.range_high,
            "flag": self.flag,
            "absolute": self.absolute.as_json() if self.absolute else None,
        }


@dataclass(frozen=True)
class OutsideCount:
    """A row outside the denominator; `per_100_wbc` is given for erythroblasts where leukocytes were counted."""

    label: str
    n: int
    per_100_wbc: float | None

    def as_json(self) -> dict[str, Any]:
        return {"label": self.label, "n": self.n, "per_100_wbc": rounded(self.per_100_wbc)}


@dataclass(frozen=True)
class Blocker:
    """Why the case can't be released yet: a stable code, how many cells it is about, and a sentence."""

    code: str
    count: int
    message: str

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "count": self.count, "message": self.message}


@dataclass(frozen=True)
class Differential:
    """The differential of a case. `n` is the number of leukocytes counted, of which `basis` says who named them."""

    n: int
    basis: str
    cells: tuple[CellShare, ...]
    outside: tuple[OutsideCount, ...]
    blocked_by: tuple[Blocker, ...]
    reviewed: int
    pre_classified: int
    unidentified: int
    unusable: int
    target_count: int
    settings_version: int
    wbc: float | None

    def as_json(self) -> dict[str, Any]:
        """Numbers as the API, the pages and the report have them: rounded here and nowhere before, to four decimals."""
        return {
            "n": self.n,
            "basis": self.basis,
            "cells": [cell.as_json() for cell in self.cells],
            "outside": [count.as_json() for count in self.outside],
            "blocked_by": [blocker.as_json() for blocker in self.blocked_by],
            "reviewed": self.reviewed,
            "pre_classified": self.pre_classified,
            "unidentified": self.unidentified,
            "unusable": self.unusable,
            "target_count": self.target_count,
            "settings_version": self.settings_version,
            "wbc": self.wbc,
        }


def rounded(percent: float | None) -> float | None:
    """To four decimals: what a person reads is rounded to one, and must not have been rounded nearby before."""
    return None if percent is None else round(percent, 4)


def pooled(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts with bands among the neutrophils and the stages of immature granulocytes as one."""
    sums: dict[str, int] = {}
    for slug, n in counts.items():
        name = POOLED.get(slug, slug)
        sums[name] = sums.get(name, 0) + n
    return sums


def differential(tally: Tally, rules: Rules, wbc: float | None = None) -> Differential:
    """Work out the differential of a tally under a laboratory's rules; `wbc` is the analyser's, in 10^9/L."""
    reviewed, suggested = pooled(tally.reviewed), pooled(tally.pre_classified)
    n = sum(reviewed.get(slug, 0) + suggested.get(slug, 0) for slug in LEUKOCYTES)
    ranges = {rule.slug: rule for rule in rules.cell_types}
    cells = tuple(
        _share(slug, reviewed.get(slug, 0), suggested.get(slug, 0), n, ranges.get(slug), wbc)
        for slug in _in_order(rules, LEUKOCYTES)
        if reviewed.get(slug) or suggested.get(slug) or (slug in ranges and ranges[slug].has_range)
    )
    outside = {slug: reviewed.get(slug, 0) + suggested.get(slug, 0) for slug in _in_order(rules, OUTSIDE)}
    return Differential(
        n=n,
        basis=_basis(sum(reviewed.values()), sum(suggested.values())),
        cells=cells,
        outside=tuple(
            OutsideCount(slug, count, 100 * count / n if slug == PER_100_WBC and n else None)
            for slug, count in outside.items()
            if count
        ),
        blocked_by=tuple(_blockers(tally, n, rules.target_count)),
        reviewed=sum(reviewed.values()),
        pre_classified=sum(suggested.values()),
        unidentified=tally.unidentified,
        unusable=tally.unusable,
        target_count=rules.target_count,
        settings_version=rules.settings_version,
        wbc=wbc,
    )


def _in_order(rules: Rules, slugs: Iterable[str]) -> list[str]:
    """The slugs in the laboratory's order, those that it does not name at the end."""
    places = {rule.slug: place for place, rule in enumerate(rules.cell_types)}
    return sorted(slugs, key=lambda slug: places.get(slug, len(places)))


def _share(slug: str, reviewed: int, suggested: int, n: int, rule: CellTypeRule | None, wbc: float | None) -> CellShare:
    k = reviewed + suggested
    percent = low = high = absolute = None
    if n:
        percent = 100 * k / n
        low, high = (100 * limit for limit in limits(k, n))
        if wbc is not None:
            absolute = Absolute(percent * wbc / 100, low * wbc / 100, high * wbc / 100)
    return CellShare(
        label=slug,
        reviewed=reviewed,
        pre_classified=suggested,
        percent=percent,
        low=low,
        high=high,
        range_low=rule.range_low if rule else None,
        range_high=rule.range_high if rule else None,
        absolute=absolute,
    )


def _basis(reviewed: int, suggested: int) -> str:
    if suggested == 0 and reviewed:
        return REVIEWED
    return MIXED if reviewed else PRE_CLASSIFIED


def _blockers(tally: Tally, n: int, target_count: int) -> Iterable[Blocker]:
    """What stands in the way of the release, in the order in which it is worked off."""
    if tally.images == 0:
        yield Blocker("no_images", 0, "The case has no images yet. Upload some.")
    if tally.queued:
        yield Blocker("queued", tally.queued, f"{images(tally.queued)} not classified yet: wait for the model.")
    if tally.failed:
        yield Blocker(
            "failed", tally.failed, f"{images(tally.failed)} not classifiable: read by hand, or mark as unusable."
        )
    if tally.unidentified:
        yield Blocker(
            "unidentified", tally.unidentified, f"{images(tally.unidentified)} unidentified: say what each one is."
        )
    if tally.unreviewed:
        yield Blocker(
            "unreviewed", tally.unreviewed, f"{images(tally.unreviewed)} not reviewed yet: confirm or correct each one."
        )
    if n < target_count:
        missing = target_count - n
        yield Blocker(
            "below_target_count",
            missing,
            f"{n:,} of {target_count:,} leukocytes counted: upload {missing:,} more.",
        )


def images(number: int) -> str:
    """`1 image is`, `2 images are`."""
    return "1 image is" if number == 1 else f"{number:,} images are"
