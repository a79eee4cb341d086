"""How the figures of a model card are written."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import template

from classifier.templatetags.cell_types import age

register = template.Library()
# As haematology abbreviates them, for the heads of narrow columns.
SHORT_NAMES = {
    "neutrophil": "NEU",
    "band_neutrophil": "BAND",
    "eosinophil": "EOS",
    "basophil": "BAS",
    "lymphocyte": "LYM",
    "monocyte": "MON",
    "promyelocyte": "PRO",
    "myelocyte": "MYE",
    "metamyelocyte": "META",
    "immature_granulocyte": "IG",
    "erythroblast": "ERY",
    "platelet": "PLT",
    "smudge_cell": "SMU",
    "artefact": "ART",
}
SOURCES = {
    "pbc": "PBC, single cells (Acevedo et al. 2020)",
    "raabin": "Raabin-WBC, single cells (Kouzehkanan et al. 2022)",
    "kaggle": "Kaggle blood-cells TRAIN, fields (BCCD)",
}


@register.filter
def count(number: int) -> str:
    """2487 -> `2,487`."""
    return f"{number:,}"


@register.filter
def short_name(slug: str) -> str:
    """`immature_granulocyte` -> `IG`."""
    return SHORT_NAMES.get(slug, slug[:4].upper())


@register.filter
def source_name(key: str) -> str:
    """The name of a source of training pictures, for people."""
    return SOURCES.get(key, key)


@register.filter
def share(fraction: float | str | None) -> str:
    """A share that was counted: 0.934 -> `93.4 %`; only all of them is `100 %`, only none is `0 %`; absent is `-`."""
    # The template language writes what a card does not hold as an empty text.
    if fraction is None or isinstance(fraction, str):
        return "-"
    if fraction in (0.0, 1.0):
        return f"{100 * fraction:.0f}\u00a0%"
    return f"{min(99.9, max(0.1, 100 * fraction)):.1f}\u00a0%"


@register.filter
def whole_share(fraction: float) -> str:
    """The same in whole percent, for narrow places: 0.934 -> `93`, and `<1` for less than half of one."""
    if fraction in (0.0, 1.0):
        return f"{100 * fraction:.0f}"
    percent = min(99, round(100 * fraction))
    return str(percent) if percent else "<1"


@register.filter
def up_to(low: float | None, high: float | None) -> str:
    """An interval: `75.7 - 96.9 %`; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"{100 * low:.1f} - {100 * high:.1f}\u00a0%"


@register.filter
def interval_of(figures: Mapping[str, Any], key: str) -> str:
    """The interval of a figure of the card, `KEY_low` and `KEY_high`; empty where the card has none."""
    return up_to(figures.get(f"{key}_low"), figures.get(f"{key}_high"))


@register.filter
def duration(seconds: float | None) -> str:
    """2070 -> `34 min`."""
    return "" if seconds is None else age(timedelta(seconds=seconds))
