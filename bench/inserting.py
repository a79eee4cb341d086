"""Rows by the million, made by the database itself: `INSERT ... SELECT` over numbers, on both databases.

An expression is SQL text over the row's number `i`, which counts from 1. Ids are hashes of numbers: a row can name
another one without looking for it, and they are spread as random ones are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db import connection, models

DASHES = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
ON_POSTGRESQL = connection.vendor == "postgresql"
JSON_PAIRS = "jsonb_agg(jsonb_build_array" if ON_POSTGRESQL else "json_group_array(json_array"
POSTGRESQL_INDEXES = """
    SELECT relation.relname, pg_get_indexdef(relation.oid) FROM pg_index
    JOIN pg_class relation ON relation.oid = pg_index.indexrelid
    WHERE pg_index.indrelid = to_regclass(%s)
    AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE pg_constraint.conindid = relation.oid)
"""
POSTGRESQL_FASTER = (
    "SET session_replication_role = replica",
    "SET synchronous_commit = off",
    "SET maintenance_work_mem = '512MB'",
)
# Where the bench is cut off, it begins anew with an empty database.
SQLITE_FASTER = (
    "PRAGMA foreign_keys = OFF",
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -400000",
    "PRAGMA temp_store = MEMORY",
)
SQLITE_PARTS = "SELECT name, sql FROM sqlite_master WHERE type = %s AND tbl_name = %s AND sql IS NOT NULL"


def digest(prefix: str, number: str) -> str:
    """An id that depends on the number alone and looks like chance."""
    text = f"md5('{prefix}' || ({number}))"
    return f"{text}::uuid" if ON_POSTGRESQL else text


def as_text(uuid: str) -> str:
    """An id as the audit trail writes it."""
    if ON_POSTGRESQL:
        return f"({uuid})::text"
    return " || '-' || ".join(f"substr({uuid}, {start}, {size})" for start, size in DASHES)


def key(pk: Any) -> str:
    """A primary key that is known."""
    return f"'{pk.hex}'::uuid" if ON_POSTGRESQL else f"'{pk.hex}'"


def hexadecimal(prefix: str, number: str) -> str:
    """64 digits, as those of a SHA-256."""
    return f"md5('{prefix}' || ({number})) || md5('{prefix}.' || ({number}))"


def before_now(seconds: str) -> str:
    if ON_POSTGRESQL:
        return f"now() - ({seconds}) * interval '1 second'"
    return f"strftime('%Y-%m-%d %H:%M:%S.000000', 'now', '-' || ({seconds}) || ' seconds')"


def one_of(choices: list[str], number: str) -> str:
    whens = " ".join(f"WHEN {place} THEN {choice}" for place, choice in enumerate(choices))
    return f"(CASE ({number}) % {len(choices)} {whens} END)"


def json(text: str) -> str:
    return f"'{text}'::jsonb" if ON_POSTGRESQL else f"'{text}'"


def truth(condition: str) -> str:
    return f"({condition})" if ON_POSTGRESQL else f"(CASE WHEN {condition} THEN 1 ELSE 0 END)"


def default(field: "models.Field[Any, Any]") -> str:
    if field.null:
        return "NULL"
    if isinstance(field, models.JSONField):
        return json("[]" if field.default is list else "{}")
    if isinstance(field, models.BooleanField):
        return truth("1 = 1" if field.get_default() else "1 = 0")
    return "''" if isinstance(field, models.CharField | models.TextField) else str(int(field.get_default() or 0))


def numbers(name: str, count: int) -> str:
    """A table with the one column `name`, which counts from 1."""
    if ON_POSTGRESQL:
        return f"generate_series(1::bigint, {count}) AS {name}"
    counted = f"SELECT 1 UNION ALL SELECT {name} + 1 FROM n WHERE {name} < {count}"
    return f"(WITH RECURSIVE n({name}) AS ({counted}) SELECT {name} FROM n)"


def fill(model: type[models.Model], count: int, columns: Mapping[str, str], where: str = "") -> None:
    """Insert a row for each number to `count` that fits; a column that is not named gets its default, or NULL."""
    chosen = {
        str(field.column): columns.get(str(field.column)) or default(field) for field in model._meta.concrete_fields
    }
    if unknown := columns.keys() - chosen.keys():
        message = f"{model.__name__} has no {', '.join(sorted(unknown))}."
        raise ValueError(message)
    names = ", ".join(f'"{name}"' for name in chosen)
    values = ", ".join(chosen.values())
    narrowed = f"WHERE {where}" if where else ""
    table = model._meta.db_table
    run(f'INSERT INTO "{table}" ({names}) SELECT {values} FROM {numbers("i", count)} {narrowed}')


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def without_checks(tables: list[str]) -> Iterator[None]:
    """Without these tables' indexes, and with no trigger and no foreign key looked at; all is back afterwards."""
    dropped: list[str] = []
    with connection.cursor() as cursor:
        for setting in POSTGRESQL_FASTER if ON_POSTGRESQL else SQLITE_FASTER:
            cursor.execute(setting)
        for table in tables:
            for kind in ("index",) if ON_POSTGRESQL else ("index", "trigger"):
                cursor.execute(*((POSTGRESQL_INDEXES, [table]) if ON_POSTGRESQL else (SQLITE_PARTS, [kind, table])))
                for name, definition in cursor.fetchall():
                    cursor.execute(f'DROP {kind} "{name}"')
                    dropped.append(definition)
    yield
    for definition in dropped:
        run(definition)
    # A new connection has the instance's own settings.
    connection.close()
