"""The settings that count for a laboratory: its newest version, or the start values."""

from typing import Any
from uuid import UUID

from classifier.differential import CellTypeRule, Rules
from classifier.models import LaboratorySettings

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
    return newest or LaboratorySettings(laboratory_id=laboratory_id, version=0, cell_types=start_cell_types())


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
