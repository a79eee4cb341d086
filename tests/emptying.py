"""Empties the database after a test that commits.

Django empties every table, by TRUNCATE on PostgreSQL, and then writes the content types and permissions anew. That
takes a quarter of a second of the processor after each such test; here only the tables that have rows are emptied.
"""

from functools import cache

from django.contrib.contenttypes.models import ContentType
from django.core.management.sql import emit_post_migrate_signal
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

# Written by the migrations' end and by no test.
KEPT = {"django_content_type", "auth_permission"}


@cache
def tables() -> list[str]:
    """The quoted names of all tables of models, less those that stay."""
    names = connection.introspection.django_table_names(only_existing=True, include_views=False)
    return [connection.ops.quote_name(name) for name in sorted(set(names) - KEPT)]


def with_rows(cursor: CursorWrapper) -> list[str]:
    asked = (f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {name})" for name in tables())
    cursor.execute(" UNION ALL ".join(asked))
    return [name for (name,) in cursor.fetchall()]


def empty_database() -> None:
    """Delete all rows but content types and permissions. On PostgreSQL it needs a superuser, as the tests have."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # As TRUNCATE does, wait for a request that is still at work; what it writes goes too.
            cursor.execute(f"LOCK TABLE {', '.join(tables())} IN ACCESS EXCLUSIVE MODE")
            # No foreign key is looked at, and no trigger refuses.
            cursor.execute("SET LOCAL session_replication_role = replica")
        for name in with_rows(cursor):
            cursor.execute(f"DELETE FROM {name}")
    ContentType.objects.clear_cache()
    if not ContentType.objects.exists():
        emit_post_migrate_signal(verbosity=0, interactive=False, db=connection.alias)
