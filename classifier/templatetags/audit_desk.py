"""Links from the figures of the audit desk to the rows behind them."""

from typing import Any

from django import template
from django.urls import reverse
from django.utils.http import urlencode

from classifier.desk_filters import REASONS, UNIDENTIFIED
from classifier.templatetags.cell_types import cell_name
from classifier.templatetags.model_card import short_name

register = template.Library()


@register.simple_tag
def desk_list(listed: str, window: Any = None, **filters: Any) -> str:
    """The address of a list of the desk, narrowed: `window` holds days, the rest are its filters."""
    days = {"from": window.first.isoformat(), "to": window.last.isoformat()} if window else {}
    address = reverse(f"admin:classifier_{listed}_changelist")
    return f"{address}?{urlencode({**days, **filters})}" if days or filters else address


@register.filter
def said_name(slug: str) -> str:
    """The name of a cell type, or of its absence."""
    return "Unidentified" if slug == UNIDENTIFIED else cell_name(slug)


@register.filter
def said_short(slug: str) -> str:
    return "none" if slug == UNIDENTIFIED else short_name(slug)


@register.filter
def reason_name(code: str) -> str:
    """Why the model abstained, in words."""
    return dict(REASONS).get(code, code)
