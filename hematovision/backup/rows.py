"""The rows of the database in a form that no database owns: a file a table, a JSON list a line."""

import gzip
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from django.apps.registry import Apps
from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.models import Field, Model
from django.utils.duration import duration_iso_string

from hematovision.backup.errors import BackupRefused

# Whoever was signed in signs in again.
LEFT_OUT = frozenset({"django_session"})
# What a migrated database has before anybody uses it: it gives way to the rows of the backup.
SEEDED = ("auth_permission", "django_content_type", "django_site")
# The database puts a row here for every audit event that is loaded: the ones of the backup take their place.
FILLED_BY_TRIGGER = {"accounts_auditeventtoseal": "accounts_auditevent"}
AT_ONCE = 2000
FAST = 3


@contextmanager
def snapshot() -> Iterator[None]:
    """Everything that is read inside is of one moment, and nobody who writes waits for it."""
    if connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
        return
    with connection.cursor() as cursor:
        # By hand: a transaction of Django's would take the write lock at once.
        cursor.execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def tables(apps: Apps) -> dict[str, type[Model]]:
    """The tables that are backed up, by name, each with its model."""
    models = apps.get_models(include_auto_created=True)
    kept = {model._meta.db_table: model for model in models if model._meta.managed and not model._meta.proxy}
    return {name: kept[name] for name in sorted(kept) if name not in LEFT_OUT}


def columns(model: type[Model]) -> "list[Field[Any, Any]]":
    return [field for field in model._meta.concrete_fields if not field.generated]


def portable(value: Any) -> Any:
    """The value as JSON can hold it; the field's own `to_python` reads it back."""
    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return duration_iso_string(value)
        case UUID() | Decimal():
            return str(value)
        case bytes() | memoryview():
            return b64encode(bytes(value)).decode("ascii")
    return value


def write_table(model: type[Model], path: Path) -> int:
    """Write all rows of the table; returns how many."""
    fields = columns(model)
    rows = model._base_manager.order_by("pk").values_list(*(field.attname for field in fields))
    count = 0
    with gzip.open(path, "wt", compresslevel=FAST, encoding="utf-8", newline="\n") as file:
        file.write(json.dumps([field.column for field in fields]) + "\n")
        for row in rows.iterator(chunk_size=AT_ONCE):
            file.write(json.dumps([portable(value) for value in row], ensure_ascii=False) + "\n")
            count += 1
    return count


def read_table(path: Path) -> Iterator[list[Any]]:
    """The names of the columns, then the rows, as they are written."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


def read_columns(path: Path, *names: str) -> Iterator[tuple[Any, ...]]:
    """Some columns of every row."""
    rows = read_table(path)
    header = next(rows)
    places = [header.index(name) for name in names]
    for row in rows:
        yield tuple(row[place] for place in places)


def load_table(model: type[Model], path: Path) -> int:
    """Put the rows into the (empty) table, inside a transaction; returns how many. Foreign keys are checked at its end.

    Raises BackupRefused where the table has not the columns of the backup.
    """
    rows = read_table(path)
    by_column = {field.column: field for field in columns(model)}
    header = next(rows)
    if set(header) != set(by_column):
        message = f"The table {model._meta.db_table} of this version has other columns than the one in the backup."
        raise BackupRefused(message)
    fields = [by_column[name] for name in header]
    quote = connection.ops.quote_name
    names = ", ".join(quote(name) for name in header)
    places = ", ".join(["%s"] * len(header))
    insert = f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({places})"  # noqa: S608 (names of ours)
    count = 0
    with connection.cursor() as cursor:
        while some := list(islice(rows, AT_ONCE)):
            cursor.executemany(insert, [stored(fields, row) for row in some])
            count += len(some)
    return count


def stored(fields: "Sequence[Field[Any, Any]]", row: Sequence[Any]) -> list[Any]:
    """The row as this database takes it."""
    return [
        field.get_db_prep_save(field.to_python(value), connection=connection)
        for field, value in zip(fields, row, strict=True)
    ]


def empty_tables(names: Iterable[str]) -> None:
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(name)}")  # noqa: S608 (names of ours)


def first_used_table(names: Iterable[str]) -> str | None:
    """The first of the tables that is there and holds a row."""
    there = set(connection.introspection.table_names())
    with connection.cursor() as cursor:
        for name in names:
            if name in there and name not in SEEDED:
                cursor.execute(f"SELECT 1 FROM {connection.ops.quote_name(name)} LIMIT 1")  # noqa: S608 (names of ours)
                if cursor.fetchone():
                    return name
    return None


def reset_sequences(models: Iterable[type[Model]]) -> None:
    """Numbers that the database gives go on after those of the backup."""
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list(models)):
            cursor.execute(statement)
