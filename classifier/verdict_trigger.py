"""The trigger that holds a review to its prediction: CONFIRMED says the model's class, CORRECTED another one.

A migration that makes the table of reviews anew on SQLite must install it again; `verify_audit` names it where it is
missing.
"""

import structlog
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import RunPython
from django.db.migrations.state import StateApps

logger = structlog.get_logger(__name__)
SAID = "a verdict agrees with the prediction that it is about: classifier_review"
# Whether a prediction is named at all, and a class, is said by constraints of the table.
ABOUT_A_CLASS = "NEW.verdict IN ('CONFIRMED', 'CORRECTED') AND NEW.prediction_id IS NOT NULL"
AGREES = """EXISTS (SELECT 1 FROM classifier_prediction WHERE id = NEW.prediction_id AND image_id = NEW.image_id
            AND (label = NEW.final_label) = (NEW.verdict = 'CONFIRMED'))"""
POSTGRESQL = (
    f"""CREATE OR REPLACE FUNCTION classifier_review_verdict_agrees() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT {AGREES} THEN RAISE EXCEPTION '{SAID}' USING ERRCODE = 'check_violation'; END IF;
            RETURN NEW;
        END $$""",
    "DROP TRIGGER IF EXISTS classifier_review_verdict_agrees ON classifier_review",
    f"""CREATE TRIGGER classifier_review_verdict_agrees BEFORE INSERT ON classifier_review
        FOR EACH ROW WHEN ({ABOUT_A_CLASS}) EXECUTE FUNCTION classifier_review_verdict_agrees()""",
)
SQLITE = (
    f"""CREATE TRIGGER IF NOT EXISTS classifier_review_verdict_agrees BEFORE INSERT ON classifier_review
        WHEN {ABOUT_A_CLASS} AND NOT {AGREES} BEGIN SELECT RAISE(ABORT, '{SAID}'); END""",
)
DISAGREEING = """
    SELECT COUNT(*) FROM classifier_review review JOIN classifier_prediction prediction ON prediction.id = prediction_id
    WHERE verdict IN ('CONFIRMED', 'CORRECTED')
    AND NOT (prediction.image_id = review.image_id AND (label = final_label) = (verdict = 'CONFIRMED'))
"""


def install_verdict_trigger(connection: BaseDatabaseWrapper) -> None:
    """Make the database refuse a review whose verdict and class don't fit its prediction. May be called again."""
    with connection.cursor() as cursor:
        for statement in POSTGRESQL if connection.vendor == "postgresql" else SQLITE:
            cursor.execute(statement)


def verdict_agrees() -> RunPython:
    """The migration's operation. Reviews of before are facts: those that don't agree are counted, and stay."""
    return RunPython(install, remove)


def install(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    with editor.connection.cursor() as cursor:
        cursor.execute(DISAGREEING)
        [disagreeing] = cursor.fetchone()
    if disagreeing:
        logger.warning("reviews_disagree_with_their_predictions", reviews=disagreeing)
    install_verdict_trigger(editor.connection)


def remove(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    table = " ON classifier_review" if editor.connection.vendor == "postgresql" else ""
    with editor.connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER IF EXISTS classifier_review_verdict_agrees{table}")
        if table:
            cursor.execute("DROP FUNCTION IF EXISTS classifier_review_verdict_agrees()")
