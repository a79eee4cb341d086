"""Cursor pages: the next page starts where the last one ended, however many rows came in between."""

from typing import Any

from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest
from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request


class NewestFirst(CursorPagination):
    """Pages of rows that bear `paging_field`, the newest first; `page_size` up to 200 on request."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def decode_cursor(self, request: Request) -> Any:
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None and not is_plausible(str(cursor.position)):
            raise NotFound(self.invalid_cursor_message)
        return cursor

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        return (f"-{queryset.model.paging_field}", "-id")


class OldestFirst(NewestFirst):
    """The same pages from the other end."""

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        return (queryset.model.paging_field, "id")


def is_plausible(position: str) -> bool:
    """Whether a cursor's position is a time that every database can compare with."""
    try:
        moment = parse_datetime(position)
    except ValueError:
        return False
    return moment is not None and moment.tzinfo is not None and 1900 <= moment.year <= 9000


def html_page(request: HttpRequest, rows: QuerySet[Any], size: int, *, oldest_first: bool = False) -> dict[str, Any]:
    """One page for a template: `rows`, and the query strings of the `older` and `newer` pages (None at the ends)."""
    pager = OldestFirst() if oldest_first else NewestFirst()
    pager.page_size = size
    try:
        found: list[Model] = pager.paginate_queryset(rows, Request(request)) or []
    except NotFound as error:
        raise Http404 from error

    def query(link: str | None) -> str | None:
        return f"?{link.partition('?')[2]}" if link else None

    on, back = query(pager.get_next_link()), query(pager.get_previous_link())
    return {"rows": found, "older": back if oldest_first else on, "newer": on if oldest_first else back}
