"""Drops an index of one column that another index begins with: each row pays for it, and no question needs it.

In a migration, an altered field would make the whole table anew on SQLite.
"""

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import AlterField, RunPython, SeparateDatabaseAndState
from django.db.migrations.state import StateApps
from django.db.models import ForeignKey


def without_own_index(table: str, name: str, field: ForeignKey[Any, Any]) -> SeparateDatabaseAndState:
    """The operation for the foreign key `name` of the table; `field` says `db_index=False`."""
    column = f"{name}_id"

    def drop(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
        drop_index(editor, table, column)

    def make(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
        # As Django names it, so that the way forward finds it.
        editor.execute(f"CREATE INDEX {table}_{column}_again ON {table} ({column})")

    return SeparateDatabaseAndState(
        database_operations=[RunPython(drop, make)],
        state_operations=[AlterField(table.partition("_")[2], name, field)],
    )


def without_index_for_patterns(table: str, column: str) -> RunPython:
    """The operation that drops the second index, for LIKE, that PostgreSQL has of an indexed text."""

    def drop(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
        if editor.connection.vendor == "postgresql":
            drop_index(editor, table, column, ending="_like")

    return RunPython(drop, RunPython.noop)


def drop_index(editor: BaseDatabaseSchemaEditor, table: str, column: str, ending: str = "") -> None:
    with editor.connection.cursor() as cursor:
        found = editor.connection.introspection.get_constraints(cursor, table)
    for name, about in found.items():
        # Those that Django made for the column, by their names: others of that column have a condition.
        plain = about["index"] and not about["unique"] and about["columns"] == [column]
        if plain and name.startswith(f"{table}_{column}_") and name.endswith(ending):
            editor.execute(f'DROP INDEX "{name}"')
