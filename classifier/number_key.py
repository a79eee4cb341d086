"""An accession number as it is compared: without regard to case, and sign by sign."""

from typing import Any

from django.db.models import CharField
from django.db.models.functions import Lower

# Sorts behind every other sign; accession numbers have at most 64.
LAST = "\U0010ffff" * 64


class NumberKey(Lower):
    """What the unique index over accession numbers holds: what begins alike stands side by side in it.

    A database sorts by a language otherwise, which may pass over hyphens.
    """

    output_field = CharField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template='(LOWER(%(expressions)s) COLLATE "C")', **context)
