"""Whether the database still refuses to change facts, and still notes every new event for its seal."""

from django.apps import apps
from django.db import connection

from accounts.facts import Fact

QUEUE_TRIGGER = "audit_event_waits"
# What a trigger must do, in the words that every one of ours has. One with the right name may do nothing.
REFUSES = {"postgresql": "RAISE EXCEPTION", "sqlite": "RAISE(ABORT"}
QUEUES = "INSERT INTO accounts_auditeventtoseal"
POSTGRESQL = """
    SELECT trigger.tgname, relation.relname, function.prosrc
    FROM pg_trigger trigger
    JOIN pg_class relation ON relation.oid = trigger.tgrelid
    JOIN pg_proc function ON function.oid = trigger.tgfoid
    WHERE NOT trigger.tgisinternal AND trigger.tgenabled IN ('O', 'A') AND pg_table_is_visible(relation.oid)
"""
SQLITE = "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'"


def missing_triggers() -> list[str]:
    """The names of the triggers that are missing, switched off, or don't do what they should."""
    with connection.cursor() as cursor:
        cursor.execute(POSTGRESQL if connection.vendor == "postgresql" else SQLITE)
        found = {(name, table): str(does) for name, table, does in cursor.fetchall()}
    wanted = {(QUEUE_TRIGGER, "accounts_auditevent"): QUEUES}
    endings = ("insert_only",) if connection.vendor == "postgresql" else ("never_changed", "never_deleted")
    for model in apps.get_models():
        if issubclass(model, Fact):
            table = model._meta.db_table
            wanted |= {
                (f"{table}_{ending}", table): REFUSES[connection.vendor] for ending in (*endings, *model.also_refused)
            }
    return sorted(name for (name, table), words in wanted.items() if words not in found.get((name, table), ""))
