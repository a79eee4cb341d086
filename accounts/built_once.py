"""A query that Django builds once: building one takes it several times as long as the database needs to answer it.

For what every request asks, and nothing else: a query that depends on who asks is built each time.
"""

import threading
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.models.query import get_related_populators

Row = TypeVar("Row", bound=models.Model)
# Stands in the query where the text will stand.
TEXT = "(text)"


@dataclass(frozen=True)
class Built:
    """A compiled query and how its rows become objects, as `ModelIterable` of Django does it."""

    connection: Any
    compiler: Any
    sql: str
    converters: dict[int, Any]
    related: list[Any]
    first: int
    names: list[str]


class BuiltOnce(Generic[Row]):
    """Finds one row by one text. `query` names TEXT in its filter, and may select related rows as well."""

    def __init__(self, query: models.QuerySet[Row]) -> None:
        self.query = query
        # A compiled query belongs to a connection, and that to a thread.
        self.local = threading.local()

    def get(self, text: str) -> Row | None:
        connection = connections[DEFAULT_DB_ALIAS]
        built: Built | None = getattr(self.local, "built", None)
        if built is None or built.connection is not connection:
            built = self.local.built = self.build(connection)
        with connection.cursor() as cursor:
            cursor.execute(built.sql, [text])
            found = cursor.fetchone()
        if found is None:
            return None
        (row,) = built.compiler.apply_converters([found], built.converters)
        own = row[built.first : built.first + len(built.names)]
        instance = self.query.model.from_db(connection.alias, built.names, own)
        for populator in built.related:
            populator.populate(row, instance)
        return instance

    def build(self, connection: Any) -> Built:
        compiler = self.query.all().query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        if parameters != (TEXT,):
            message = "A query that is built once has one parameter: its text."
            raise ValueError(message)
        own = compiler.klass_info["select_fields"]
        return Built(
            connection=connection,
            compiler=compiler,
            sql=sql,
            converters=compiler.get_converters([column for column, *_ in compiler.select]),
            # The stubs have the signature of a later Django already.
            related=get_related_populators(compiler.klass_info, compiler.select, connection.alias),  # type: ignore[call-arg]
            first=own[0],
            names=[compiler.select[at][0].target.attname for at in own],
        )
