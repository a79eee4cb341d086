"""What the lists of the desk share: read-only, narrowed by what an index leads to, never counted in full."""

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import JSONField, Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from accounts.admin import VerbAdmin, signed_in
from accounts.audit_filters import DaysFilter
from accounts.capped_paging import ListAhead
from classifier.desk_filters import NO_FILTERS, DeskFilter, begin_of
from ml.labels import CELL_TYPES, display_name


class DeskAdmin(VerbAdmin):
    """A read-only list of one kind of row. `desk_filters` are all the ways to narrow it.

    `export_kind` names the export that holds the same rows, if there is one.
    """

    desk_filters: ClassVar[tuple[DeskFilter, ...]] = ()
    export_kind: ClassVar[str] = ""
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    # No column but those that an index is in the order of.
    sortable_by: ClassVar[Any] = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ListAhead

    def get_list_filter(self, request: HttpRequest) -> Any:
        dates = [DaysOf.field(each.field) for each in self.desk_filters if each.name == "from"]
        return [*dates, *(as_list_filter(each) for each in self.desk_filters if each.name not in ("from", "to"))]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Nothing but the filters, so that an export of the list can hold the same rows."""
        return lookup in NO_FILTERS or lookup in {each.name for each in self.desk_filters}

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Where a column holds JSON, its content as lines."""
        kept = {field.name for field in self.model._meta.fields if isinstance(field, JSONField)}
        return [as_lines(name) if name in kept else name for name in super().get_fields(request, obj)]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        kept = [field.name for field in self.model._meta.fields if isinstance(field, JSONField)]
        return [*super().get_readonly_fields(request, obj), *(as_lines(name) for name in kept)]


class DaysOf(DaysFilter):
    """From a day, to a day, both included, of one column."""

    column = "at"

    @classmethod
    @cache
    def field(cls, column: str) -> type["DaysOf"]:
        return type("Days", (cls,), {"column": column})

    def queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        first, last = self.day("from"), self.day("to")
        if first:
            rows = rows.filter(**{f"{self.column}__gte": begin_of(first.isoformat())})
        if last:
            rows = rows.filter(**{f"{self.column}__lt": begin_of(last.isoformat(), 1)})
        return rows


@cache
def as_list_filter(desk_filter: DeskFilter) -> type[admin.SimpleListFilter]:
    """The filter as the admin has them."""

    class ListFilter(admin.SimpleListFilter):
        title = desk_filter.title.lower() if desk_filter.title[1:2].islower() else desk_filter.title
        parameter_name = desk_filter.name

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return desk_filter.choices(signed_in(request).laboratory)

        def has_output(self) -> bool:
            return True

        def choices(self, changelist: ChangeList) -> Any:
            return super().choices(changelist)

        def queryset(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
            value = self.value()
            if not value:
                return rows
            usable = desk_filter.clean(value)
            if usable is None:
                raise IncorrectLookupParameters
            return desk_filter.narrow(rows, usable, signed_in(request).laboratory_id)

    return ListFilter


@cache
def as_lines(name: str) -> Callable[[Any], str]:
    """A column of JSON as a person reads it."""

    @admin.display(description=name.replace("_", " "))
    def lines(row: Any) -> str:
        return readable(getattr(row, name))

    return lines


def readable(value: Any) -> str:
    """JSON as lines: names with their values, lists in a line, and tables of numbers by their size."""
    if value is None or value in ({}, [], ""):
        return "-"
    if isinstance(value, dict):
        lines = ((named(key), readable(each)) for key, each in value.items())
        return format_html('<dl class="readable">{}</dl>', format_html_join("", "<dt>{}</dt><dd>{}</dd>", lines))
    if isinstance(value, list):
        if all(isinstance(each, dict) for each in value):
            items = ((readable(each),) for each in value)
            return format_html('<ol class="readable">{}</ol>', format_html_join("", "<li>{}</li>", items))
        if all(isinstance(each, list) for each in value):
            return f"{len(value)} rows of {len(value[0])} values"
        return ", ".join(str(readable(each)) for each in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return named(str(value))


def named(text: str) -> str:
    return display_name(text) if text in CELL_TYPES else text
