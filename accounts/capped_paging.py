"""Pages of a table that may be huge: a page and the row after it are read, and counted is where somebody asks."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ALL_VAR, PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest

# Nobody turns the pages any further: filters lead to the others.
SHOWN = 1000
COUNTED = 10_000


class ListAhead(ChangeList):
    """A list of the admin that knows of its length only whether there are more rows.

    Counting would read all rows of a laboratory for a filter that few of them fit, where a page ends with its last row.
    `first_row` and `last_row` are the shown ones', counted from 1; `result_count` is the length of the whole list where
    `has_more` is False. `counted`: the length, up to COUNTED, where somebody asked for it.
    """

    def get_results(self, request: HttpRequest) -> None:
        before, size = (self.page_num - 1) * self.list_per_page, self.list_per_page
        if not 0 <= before < SHOWN:
            raise IncorrectLookupParameters
        # Keys first: with all that a row shows joined to it, databases sort wide rows instead of following an index.
        found: list[Any] = list(self.queryset.values_list("pk", flat=True)[before : before + size + 1])
        if before and not found:
            raise IncorrectLookupParameters
        self.has_more = len(found) > size
        rows = self.apply_select_related(self.root_queryset).order_by().in_bulk(found[:size])
        # One may have gone in between.
        self.result_list = [rows[key] for key in found if key in rows]
        self.first_row, self.last_row = before + 1, before + len(self.result_list)
        self.counted: int | None = None
        if self.show_all and self.has_more:
            # Any rows will do, so in no order.
            self.counted = self.queryset.order_by()[: COUNTED + 1].count()
        self.counted_all = self.counted is not None and self.counted <= COUNTED
        self.count_link = self.get_query_string({ALL_VAR: "", PAGE_VAR: self.page_num})
        # Only who asks has it counted: links to other pages and filters don't.
        self.filter_params.pop(ALL_VAR, None)
        self.at_the_end = self.has_more and before + size >= SHOWN
        # What the admin itself asks of a list: how many rows it knows of, and the pages up to the next one.
        known = min(before + len(found), SHOWN)
        self.result_count = self.last_row
        # Two equal numbers, so that the search box names none of them.
        self.full_result_count = self.result_count
        self.show_full_result_count = self.can_show_all = self.show_all = False
        self.show_admin_actions = True
        self.multi_page = known > size
        self.paginator = Paginator(range(known), size)
