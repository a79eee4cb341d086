"""Cursor pages: the next page starts where the last one ended, however many rows came in between."""

from typing import Any

from django.db.models import Model, QuerySet
from django.http import HttpRequest
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request


class NewestFirst(CursorPagination):
    """Pages of rows that bear `paging_field`, the newest first; `page_size` up to 200 on request."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        return (f"-{queryset.model.paging_field}", "-id")


def html_page(request: HttpRequest, rows: QuerySet[Any], size: int) -> dict[str, Any]:
    """One page for a template: `rows`, and the query strings of the `older` and `newer` pages (None at the ends)."""
    pager = NewestFirst()
    pager.page_size = size
    found: list[Model] = pager.paginate_queryset(rows, Request(request)) or []

    def query(link: str | None) -> str | None:
        return f"?{link.partition('?')[2]}" if link else None

    return {"rows": found, "older": query(pager.get_next_link()), "newer": query(pager.get_previous_link())}
