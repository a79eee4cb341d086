"""The settings that count for a laboratory: its newest version, or the start values; and what changed when."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from classifier.differential import CellTypeRule, Rules
from classifier.models import LaboratorySettings
from ml.labels import CELL_TYPES, display_name

# Reference ranges in percent of leukocytes for adult blood, and LOINC codes; the order is that of the keys 1 to 9.
START_VALUES: tuple[tuple[str, float | None, float | None, str], ...] = (
    ("neutrophil", 50.0, 70.0, "26511-6"),
    ("lymphocyte", 20.0, 40.0, "26478-8"),
    ("monocyte", 2.0, 8.0, "26485-3"),
    ("eosinophil", 1.0, 4.0, "26450-7"),
    ("basophil", 0.0, 2.0, "30180-4"),
    ("immature_granulocyte", None, None, ""),
    ("erythroblast", None, None, "19048-8"),
    ("platelet", None, None, ""),
    ("artefact", None, None, ""),
    ("smudge_cell", None, None, ""),
    ("band_neutrophil", None, None, ""),
    ("promyelocyte", None, None, ""),
    ("myelocyte", None, None, ""),
    ("metamyelocyte", None, None, ""),
)


def start_cell_types() -> list[dict[str, Any]]:
    return [
        {"slug": slug, "range_low": low, "range_high": high, "loinc": loinc} for slug, low, high, loinc in START_VALUES
    ]


def settings_of(laboratory_id: UUID) -> LaboratorySettings:
    """The newest version of its settings; the start values, unsaved and of version 0, where there is none."""
    newest = LaboratorySettings.objects.filter(laboratory=laboratory_id).order_by("-version").first()
    return newest or start_settings(laboratory_id)


def start_settings(laboratory_id: UUID) -> LaboratorySettings:
    """What counts before anybody has saved anything: an unsaved row of version 0."""
    return LaboratorySettings(laboratory_id=laboratory_id, version=0, cell_types=start_cell_types())


def rules_of(settings: LaboratorySettings) -> Rules:
    """What a differential needs of the settings."""
    return Rules(
        settings_version=settings.version,
        target_count=settings.target_count,
        cell_types=tuple(
            CellTypeRule(rule["slug"], rule["range_low"], rule["range_high"], rule["loinc"])
            for rule in settings.cell_types
        ),
    )


@dataclass(frozen=True)
class Change:
    """One thing that a version changed: the field's name for the audit trail, its name and two values for people."""

    field: str
    what: str
    then: str
    now: str


def changes_between(then: LaboratorySettings, now: LaboratorySettings) -> list[Change]:
    """What is different in `now`, in the order of the page."""
    return [
        change for change in [*_plain_changes(then, now), *_cell_type_changes(then, now)] if change.then != change.now
    ]


def _plain_changes(then: LaboratorySettings, now: LaboratorySettings) -> Iterator[Change]:
    yield Change("target_count", "Target count", f"{then.target_count:,}", f"{now.target_count:,}")
    releases = {True: "an uploader of the case too", False: "only somebody who uploaded nothing to the case"}
    yield Change(
        "uploader_may_release", "Who releases", releases[then.uploader_may_release], releases[now.uploader_may_release]
    )
    yield Change("abstain_below", "No class below", confidence(then.abstain_below), confidence(now.abstain_below))
    yield Change("time_zone", "Time zone of signatures", then.time_zone, now.time_zone)


def _cell_type_changes(then: LaboratorySettings, now: LaboratorySettings) -> Iterator[Change]:
    before = {rule["slug"]: rule for rule in then.cell_types}
    none = {"range_low": None, "range_high": None, "loinc": ""}
    for rule in now.cell_types:
        slug, old = rule["slug"], before.get(rule["slug"], none)
        name = display_name(slug) if slug in CELL_TYPES else slug
        for field, what in (("range_low", "lower limit"), ("range_high", "upper limit")):
            yield Change(f"cell_types.{slug}.{field}", f"{name}, {what}", percent(old[field]), percent(rule[field]))
        yield Change(f"cell_types.{slug}.loinc", f"{name}, LOINC", old["loinc"] or "none", rule["loinc"] or "none")
    yield _order_change([rule["slug"] for rule in then.cell_types], [rule["slug"] for rule in now.cell_types])


def _order_change(then: list[str], now: list[str]) -> Change:
    """The stretch of the order that is not what it was."""
    differing = [place for place, pair in enumerate(zip(then, now, strict=False)) if pair[0] != pair[1]]
    stretch = slice(differing[0], differing[-1] + 1) if differing else slice(0, 0)
    what = f"Order from place {stretch.start + 1}"
    return Change("cell_types.order", what, _names(then[stretch]), _names(now[stretch]))


def _names(slugs: list[str]) -> str:
    return ", ".join(display_name(slug).lower() if slug in CELL_TYPES else slug for slug in slugs)


def percent(limit: float | None) -> str:
    """A limit of a reference range: `4 %`, `1.5 %`, `none`."""
    return "none" if limit is None else f"{limit:g} %"


def confidence(fraction: float | None) -> str:
    """A confidence threshold: `90 %`, or that the model's own counts."""
    return "the model's own limit" if fraction is None else f"{100 * fraction:g} %"
