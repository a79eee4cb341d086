"""What the form of the de-identified export offers."""

from django import template

from ml.labels import CELL_TYPES

register = template.Library()


@register.simple_tag
def all_cell_types() -> tuple[str, ...]:
    """Every cell type that a review can name, by its slug."""
    return CELL_TYPES
