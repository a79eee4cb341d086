"""Pages of a table that may be huge: counting ends where nobody turns the pages any more."""

from typing import TYPE_CHECKING, Any, cast

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

if TYPE_CHECKING:
    PaginatorOfRows = Paginator[Any]
else:
    # Only the stubs know what it pages.
    PaginatorOfRows = Paginator

COUNTED = 1000


class CappedPaginator(PaginatorOfRows):
    """Counts up to 1,000 rows and no further. `is_capped` says that there are more; filters lead to them."""

    @cached_property
    def found(self) -> int:
        # Any rows will do, so in no order, and none but the first thousand and one.
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by()[: COUNTED + 1].count()

    @property
    def is_capped(self) -> bool:
        return self.found > COUNTED

    @cached_property
    def count(self) -> int:
        return min(self.found, COUNTED)
