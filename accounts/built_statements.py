"""Statements that Django builds once: building one takes it many times as long as the database needs to answer it.

For what every request and every micro-batch asks or writes, and nothing else. Each is written as an ordinary query
set, in which `Given` and `OneOf` stand for the values that are named when it is asked. PostgreSQL keeps how it is
answered; so whatever else stands in a statement is part of its text, or a plan could use no partial index.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections, models, transaction
from django.db.models.expressions import Expression
from django.db.models.query import get_related_populators
from django.db.models.sql import InsertQuery, UpdateQuery

from accounts.facts import Fact, FactError

Row = TypeVar("Row", bound=models.Model)
# SQLite takes 32,766 values in one statement.
MOST_ROWS = 500


def prepared_cursor(connection: Any) -> Any:
    """A cursor for a statement that is the same each time but for its values: PostgreSQL keeps how it is answered."""
    return connection.prepared_cursor() if connection.vendor == "postgresql" else connection.cursor()


class Given(Expression):
    """A value that is named when the statement is asked; `kind` is a field of the kind of the column."""

    def __init__(self, name: str, kind: models.Field) -> None:
        super().__init__(output_field=kind)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        return "%s", [self]

    def ready(self, value: Any, connection: Any) -> Any:
        return self.output_field.get_db_prep_value(value, connection)


class Givens(Given):
    """Several values as one parameter, so that their number is not part of the statement."""

    def ready(self, value: Any, connection: Any) -> Any:
        values = [super(Givens, self).ready(each, connection) for each in value]
        return values if connection.vendor == "postgresql" else json.dumps(values)


class OneOf(models.Func):
    """The condition that a column holds one of the values that are named when the statement is asked."""

    output_field = models.BooleanField()

    def __init__(self, column: str, name: str, kind: models.Field) -> None:
        super().__init__(models.F(column), Givens(name, kind))

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, list[Any]]:  # type: ignore[override]
        column, values = self.get_source_expressions()
        left, parameters = compiler.compile(column)
        right = "= ANY(%s)" if connection.vendor == "postgresql" else "IN (SELECT value FROM json_each(%s))"
        return f"{left} {right}", [*parameters, values]


@dataclass(frozen=True)
class Built:
    """A compiled statement and its parameters, and how its rows become objects, as `ModelIterable` of Django does it:
    the converters of its columns, the row's own columns from the `first` on, and the related rows.
    """

    connection: Any
    sql: str
    parameters: Sequence[Any]
    compiler: Any
    converters: Mapping[int, Any]
    first: int = 0
    names: Sequence[str] = ()
    related: Sequence[Any] = ()

    def run(self, given: Mapping[str, Any], cursor: Any) -> None:
        values = [
            each.ready(given[each.name], self.connection) if isinstance(each, Given) else each
            for each in self.parameters
        ]
        cursor.execute(self.sql, values)

    def rows(self, cursor: Any) -> list[Any]:
        found: list[Any] = cursor.fetchall()
        return list(self.compiler.apply_converters(found, self.converters)) if self.converters else found


class Statement(Generic[Row]):
    """A statement that each thread builds at its first use: what is compiled belongs to a connection."""

    def __init__(self, model: type[Row], query: Any) -> None:
        self.model = model
        self.query = query
        self.local = threading.local()

    def built(self) -> Built:
        connection = connections[DEFAULT_DB_ALIAS]
        built: Built | None = getattr(self.local, "built", None)
        if built is None or built.connection is not connection:
            built = self.local.built = self.build(self.query.clone().get_compiler(connection=connection), connection)
        return built

    def build(self, compiler: Any, connection: Any) -> Built:
        raise NotImplementedError

    def as_objects(self, rows: Sequence[Any]) -> list[Row]:
        built = self.built()
        end = built.first + len(built.names)
        objects = []
        for row in rows:
            instance = self.model.from_db(DEFAULT_DB_ALIAS, built.names, row[built.first : end])
            for populator in built.related:
                populator.populate(row, instance)
            objects.append(instance)
        return objects


class BuiltSelect(Statement[Row]):
    """Reads rows; where the query set locks them, within a transaction only.

    PostgreSQL must not keep how a statement is answered (`kept`) where that depends on the values: it would answer it
    in the same way for one case and for many.
    """

    def __init__(self, rows: models.QuerySet[Row, Any], *, kept: bool = True) -> None:
        super().__init__(rows.model, rows.query)
        self.kept = kept

    def build(self, compiler: Any, connection: Any) -> Built:
        sql, parameters = with_its_values(compiler, connection)
        converters = compiler.get_converters([column for column, *_ in compiler.select])
        if compiler.klass_info is None:
            return Built(connection, sql, parameters, compiler, converters)
        own = compiler.klass_info["select_fields"]
        return Built(
            connection,
            sql,
            parameters,
            compiler,
            converters,
            first=own[0],
            names=[compiler.select[at][0].target.attname for at in own],
            # The stubs have the signature of a later Django already.
            related=get_related_populators(compiler.klass_info, compiler.select, connection.alias),  # type: ignore[call-arg]
        )

    def rows(self, **given: Any) -> list[Any]:
        """The columns of each row, in the order of `values_list`."""
        built = self.built()
        with prepared_cursor(built.connection) if self.kept else built.connection.cursor() as cursor:
            built.run(given, cursor)
            return built.rows(cursor)

    def objects(self, **given: Any) -> list[Row]:
        """Each row as an object of its model, with what `select_related` names; not for query sets with `values_list`,
        annotations or `prefetch_related`.
        """
        return self.as_objects(self.rows(**given))

    def one(self, **given: Any) -> Row | None:
        """The first of the objects, or None: for a query set that finds one at most."""
        found = self.objects(**given)
        return found[0] if found else None

    def any(self, **given: Any) -> bool:
        return bool(self.rows(**given))


class BuiltUpdate(Statement[Row]):
    """Changes rows, as `QuerySet.update` does. Moves of images are built by `classifier.transitions.built_move`."""

    def __init__(self, rows: models.QuerySet[Row, Any], *, returning: bool = False, **changes: Any) -> None:
        query: Any = rows.order_by().query.chain(UpdateQuery)
        query.add_update_values(changes)
        super().__init__(rows.model, query)
        self.returning = returning

    def build(self, compiler: Any, connection: Any) -> Built:
        sql, parameters = with_its_values(compiler, connection)
        if not self.returning:
            return Built(connection, sql, parameters, compiler, {})
        meta = self.model._meta
        returned, _ = connection.ops.return_insert_columns(meta.concrete_fields)
        converters = compiler.get_converters([field.get_col(meta.db_table) for field in meta.concrete_fields])
        names = [field.attname for field in meta.concrete_fields]
        return Built(connection, f"{sql} {returned}", parameters, compiler, converters, names=names)

    def update(self, **given: Any) -> int:
        """Returns how many rows were changed."""
        built = self.built()
        with transaction.mark_for_rollback_on_error(DEFAULT_DB_ALIAS), prepared_cursor(built.connection) as cursor:
            built.run(given, cursor)
            changed: int = cursor.rowcount
        return changed

    def objects(self, **given: Any) -> list[Row]:
        """The rows that were changed, as they are now, in any order; where the statement is `returning`."""
        built = self.built()
        with transaction.mark_for_rollback_on_error(DEFAULT_DB_ALIAS), prepared_cursor(built.connection) as cursor:
            built.run(given, cursor)
            return self.as_objects(built.rows(cursor))


class BuiltInsert(Generic[Row]):
    """Inserts new rows whose keys are known before, as `save(force_insert=True)` and `bulk_create` do, but tells no
    signal.
    """

    def __init__(self, model: type[Row]) -> None:
        self.model = model
        self.fields = model._meta.concrete_fields
        # What comes before the rows, and what stands for one, by the kind of database.
        self.built: dict[str, tuple[str, str]] = {}

    def insert(self, *rows: Row) -> None:
        """Inserts all of them or none, by one statement for each 500. Raises FactError for a fact that is written
        already, as `save` does.
        """
        if not rows:
            return
        if issubclass(self.model, Fact) and not all(each._state.adding for each in rows):
            message = f"{self.model.__name__} is a fact: it is never changed."
            raise FactError(message)
        connection = connections[DEFAULT_DB_ALIAS]
        if connection.vendor not in self.built:
            self.built[connection.vendor] = self.build(rows[0], connection)
        with transaction.atomic(savepoint=False):
            for at in range(0, len(rows), MOST_ROWS):
                self.write(rows[at : at + MOST_ROWS], connection)
        for each in rows:
            each._state.adding = False
            each._state.db = DEFAULT_DB_ALIAS

    def write(self, rows: Sequence[Row], connection: Any) -> None:
        before, row = self.built[connection.vendor]
        values = [
            field.get_db_prep_save(field.pre_save(each, add=True), connection) for each in rows for field in self.fields
        ]
        # The number of several is part of the text, so that it is seldom the same.
        with prepared_cursor(connection) if len(rows) == 1 else connection.cursor() as cursor:
            cursor.execute(before + ", ".join([row] * len(rows)), values)

    def build(self, row: Row, connection: Any) -> tuple[str, str]:
        query = InsertQuery(self.model)
        query.insert_values(self.fields, [row])
        [(sql, _)] = query.get_compiler(connection=connection).as_sql()
        before, values, placeholders = sql.rpartition("VALUES ")
        if row.pk is None or placeholders != f"({', '.join(['%s'] * len(self.fields))})":
            message = "An insert that is built once has one value for each field, and its key among them."
            raise ValueError(message)
        return before + values, placeholders


def with_its_values(compiler: Any, connection: Any) -> tuple[str, Sequence[Any]]:
    """The statement with the values that it always has written into it, and what is left of its parameters."""
    sql, parameters = compiler.as_sql()
    if connection.vendor != "postgresql":
        return sql, parameters
    texts = ["%s" if isinstance(each, Given) else connection.literal(each) for each in parameters]
    # What is doubled stays so: the cursor reads the statement once more.
    return sql.replace("%%", "%%%%") % tuple(texts), [each for each in parameters if isinstance(each, Given)]
