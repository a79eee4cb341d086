"""The trigger that notes every new audit event for the next seal, in the transaction of the event itself.

A row that waits, and not a time or a number in the event: transactions commit in any order, so nothing in the event
itself could say which of them the sealer has not seen yet.
"""

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import RunPython
from django.db.migrations.state import StateApps

WAITING_SO_FAR = """INSERT INTO accounts_auditeventtoseal (event_id) SELECT id FROM accounts_auditevent"""
POSTGRESQL = (
    """CREATE OR REPLACE FUNCTION audit_event_waits_for_seal() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN INSERT INTO accounts_auditeventtoseal (event_id) VALUES (NEW.id); RETURN NULL; END $$""",
    "DROP TRIGGER IF EXISTS audit_event_waits ON accounts_auditevent",
    """CREATE TRIGGER audit_event_waits AFTER INSERT ON accounts_auditevent
       FOR EACH ROW EXECUTE FUNCTION audit_event_waits_for_seal()""",
)
SQLITE = (
    """CREATE TRIGGER IF NOT EXISTS audit_event_waits AFTER INSERT ON accounts_auditevent
       BEGIN INSERT INTO accounts_auditeventtoseal (event_id) VALUES (NEW.id); END""",
)


def queue_new_events() -> RunPython:
    """The migration's operation: from here on every event waits for a seal, those of before as well."""

    def install(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
        with editor.connection.cursor() as cursor:
            cursor.execute(WAITING_SO_FAR)
            for statement in POSTGRESQL if editor.connection.vendor == "postgresql" else SQLITE:
                cursor.execute(statement)

    return RunPython(install, RunPython.noop)
