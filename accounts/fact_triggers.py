"""Triggers that keep facts insert-only against plain SQL as well; installed by migrations.

A migration that alters a fact's table on SQLite makes the table anew and so must install its triggers again; the tests
find out when it did not.
"""

from collections.abc import Callable

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import RunPython
from django.db.migrations.state import StateApps

POSTGRESQL = (
    """CREATE OR REPLACE FUNCTION fact_is_insert_only() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN RAISE EXCEPTION 'a fact is never changed or deleted: %', TG_TABLE_NAME; END $$""",
    "DROP TRIGGER IF EXISTS {table}_insert_only ON {table}",
    """CREATE TRIGGER {table}_insert_only BEFORE UPDATE OR DELETE ON {table}
       FOR EACH ROW EXECUTE FUNCTION fact_is_insert_only()""",
)
SQLITE = (
    """CREATE TRIGGER IF NOT EXISTS {table}_never_changed BEFORE UPDATE ON {table}
       BEGIN SELECT RAISE(ABORT, 'a fact is never changed: {table}'); END""",
    """CREATE TRIGGER IF NOT EXISTS {table}_never_deleted BEFORE DELETE ON {table}
       BEGIN SELECT RAISE(ABORT, 'a fact is never deleted: {table}'); END""",
)


def install_fact_triggers(connection: BaseDatabaseWrapper, table: str) -> None:
    """Make plain SQL refuse to change or delete the table's rows. May be called again."""
    with connection.cursor() as cursor:
        for statement in POSTGRESQL if connection.vendor == "postgresql" else SQLITE:
            cursor.execute(statement.replace("{table}", table))


def insert_only(table: str) -> RunPython:
    """The migration's operation for one table."""
    return RunPython(_installing(table), RunPython.noop)


def insert_only_again(table: str) -> RunPython:
    """The operation that guards a table on the way back, after what made it anew."""
    return RunPython(RunPython.noop, _installing(table))


def _installing(table: str) -> Callable[[StateApps, BaseDatabaseSchemaEditor], None]:
    def install(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
        install_fact_triggers(editor.connection, table)

    return install
