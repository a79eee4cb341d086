"""How cell types, fractions and ages are written on the pages."""

from datetime import datetime, timedelta

from django import template
from django.utils import timezone

from ml.labels import display_name

register = template.Library()
DATA_SETS = {
    "pbc_test": "PBC, held-out cells",
    "raabin_held_out_slides": "Raabin, held-out slides",
    "kaggle_test": "Kaggle fields, TEST files",
    "kaggle_test_simple": "Kaggle fields, original photographs",
    "jtsc_never_trained_on": "JTSC, another microscope",
    "local_cells_cross_validated": "Your labelled cells, by cross-validation",
}
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@register.filter
def cell_name(slug: str) -> str:
    """`immature_granulocyte` -> `Immature granulocyte`."""
    return display_name(slug)


@register.filter
def percent(fraction: float) -> str:
    """0.934 -> `93.4 %`. Never rounds to certainty: 0.9999 is `> 99.9 %`, 0.0001 is `< 0.1 %`."""
    if fraction > 0.999:
        return "> 99.9 %"
    if fraction < 0.001:
        return "< 0.1 %"
    return f"{100 * fraction:.1f} %"


@register.filter
def data_set_name(key: str) -> str:
    """The name of a data set on the model card, for people."""
    return DATA_SETS.get(key, key.replace("_", " "))


@register.filter
def age(moment: datetime | timedelta | None) -> str:
    """How long ago, or how long: `2 s`, `3 min`, `5 h`, `4 d`."""
    if moment is None:
        return ""
    seconds = int((moment if isinstance(moment, timedelta) else timezone.now() - moment).total_seconds())
    unit, size = next(((unit, size) for unit, size in UNITS if seconds >= size), UNITS[-1])
    return f"{max(0, seconds) // size} {unit}"
