"""How the outcome of a trial is written."""

from django import template

from classifier.binomial import limits
from classifier.differential import CellShare
from classifier.templatetags.model_card import short_name
from ml.labels import display_name

register = template.Library()


@register.filter
def label_name(slug: str) -> str:
    """`monocyte` -> `Monocyte`; the empty label is `Unidentified`."""
    return display_name(slug) if slug else "Unidentified"


@register.filter
def label_short(slug: str) -> str:
    return short_name(slug) if slug else "?"


@register.filter
def images_would(number: int) -> str:
    """`1 image would`, `2,000 images would`."""
    return "1 image would" if number == 1 else f"{number:,} images would"


@register.filter
def times(number: int) -> str:
    """`once`, `12 times`, `never`."""
    return {0: "never", 1: "once"}.get(number, f"{number:,} times")


@register.filter
def limits_of(number: int, of: int) -> str:
    """The exact 95 % limits of a share: ` (72.1-97.5 %)`."""
    low, high = limits(number, of)
    return f" ({100 * low:.1f}-{100 * high:.1f}\u00a0%)"


@register.filter
def in_differential(share: CellShare) -> str:
    """`12, 24.0 % [13.1-38.2]`, or a dash where no leukocyte is counted."""
    if share.percent is None or share.low is None or share.high is None:
        return "-"
    return f"{share.n:,}, {share.percent:.1f}\u00a0% [{share.low:.1f}-{share.high:.1f}]"
