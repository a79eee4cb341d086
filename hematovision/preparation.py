"""What happens to an instance's data before it starts: check, back up, migrate, register the model, demo users.

A process of its own (`python -m hematovision.preparation`), so that the supervisor stays small. It prints one line
for each thing that a person may want to know, and exits with 1 and one sentence where it cannot go on.
"""

import io
import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from hematovision.static_files import collect_static_files

BACKUPS_KEPT = 5
# Rows of a table that is told to the planner: a smaller one may be large long before the next start.
LARGE_TABLE = 10_000
OUR_APPS = {"accounts", "classifier"}


class NotPrepared(Exception):
    """The sentence that the user reads."""


def say(line: str) -> None:
    print(line, flush=True)


def run_command(*arguments: str, **options: Any) -> None:
    call_command(*arguments, verbosity=0, **options)


def back_up_sqlite(database: Path, folder: Path) -> Path:
    """Copy a database that may be in use, check the copy, and only then give it its name."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{database.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z.sqlite3"
    partial = folder / f".{name}.partial"
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
            verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        partial.unlink(missing_ok=True)
        message = f"The database could not be backed up ({verdict}), so nothing was migrated: {database}"
        raise NotPrepared(message)
    backup = partial.rename(folder / name)
    for old in sorted(folder.glob(f"{database.stem}-*.sqlite3"))[:-BACKUPS_KEPT]:
        old.unlink()
    return backup


def migrate() -> None:
    """Bring the database to this version of the code; existing data are backed up before."""
    executor = MigrationExecutor(connection)
    applied = set(executor.loader.applied_migrations)
    strange = applied - set(executor.loader.disk_migrations)
    # Ours only: libraries rename and squash theirs.
    if unknown := sorted(f"{app}.{name}" for app, name in strange if app in OUR_APPS):
        message = (
            f"The database was written by a newer version of HematoVision ({unknown[-1]}); start that one instead."
        )
        raise NotPrepared(message)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not pending:
        return
    if applied and connection.vendor == "sqlite":
        backup = back_up_sqlite(Path(settings.DATABASES["default"]["NAME"]), settings.VAR_DIR / "backups")
        say(f"The database is backed up before the upgrade: {backup}")
    elif applied:
        say("The database is upgraded in place; backups of PostgreSQL are the operator's (manage.py backup).")
    say(f"Migrating the database ({len(pending)} steps) ...")
    run_command("migrate", interactive=False)


def gather_statistics() -> None:
    """Let SQLite know its large tables and indexes, of each by a thousand rows: by itself it never looks."""
    if connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA analysis_limit = 1000")
        # Not `PRAGMA optimize`: it only looks at what this connection has asked for before.
        cursor.execute("ANALYZE")
        cursor.execute(
            """DELETE FROM sqlite_stat1 WHERE tbl NOT IN
               (SELECT tbl FROM sqlite_stat1 GROUP BY tbl HAVING MAX(CAST(stat AS INTEGER)) >= %s)""",
            [LARGE_TABLE],
        )


def prepare() -> None:
    try:
        django.setup()
        connection.ensure_connection()
    except ImproperlyConfigured as error:
        raise NotPrepared(str(error)) from error
    except DatabaseError as error:
        place = settings.DATABASES["default"]
        message = f"The database {place['HOST'] or ''} {place['NAME']} cannot be opened: {str(error).splitlines()[0]}"
        raise NotPrepared(message) from error
    try:
        call_command("check", fail_level="ERROR", stdout=io.StringIO())
    except SystemCheckError as error:
        raise NotPrepared(str(error)) from error
    migrate()
    run_command("createcachetable")
    collect_static_files(settings.VAR_DIR / "static-collected")
    call_command("register_model")
    if not settings.PRODUCTION:
        run_command("create_demo_users")
    gather_statistics()


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hematovision.settings")
    try:
        prepare()
    except (NotPrepared, CommandError) as error:
        say(str(error))
    except DatabaseError as error:
        say(f"The database refused a step: {str(error).splitlines()[0]}")
    except OSError as error:
        say(f"{error.filename or settings.VAR_DIR} cannot be used: {error.strerror}.")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
