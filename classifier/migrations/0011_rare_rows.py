from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from accounts.fact_triggers import insert_only, insert_only_again
from classifier.models.laboratory_key import LaboratoryKey

REPORT, VOID = "classifier_report", "classifier_void"
OF_THE_CASE = "(SELECT laboratory_id FROM classifier_case WHERE classifier_case.id = case_id)"
OF_THE_IMAGE = "(SELECT laboratory_id FROM classifier_cellimage WHERE classifier_cellimage.id = image_id)"
FILL = {
    REPORT: f"UPDATE {REPORT} SET laboratory_id = {OF_THE_CASE}",
    VOID: f"UPDATE {VOID} SET laboratory_id = COALESCE({OF_THE_CASE}, {OF_THE_IMAGE})",
}


def fill_laboratories(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    """Give the rows of before their laboratory. The triggers of the facts are off meanwhile, in this transaction."""
    on_postgresql = editor.connection.vendor == "postgresql"
    with editor.connection.cursor() as cursor:
        for table, statement in FILL.items():
            trigger = f"{table}_insert_only ON {table}" if on_postgresql else f"{table}_never_changed"
            cursor.execute(f"DROP TRIGGER IF EXISTS {trigger}")
            cursor.execute(statement)
        if on_postgresql:
            # What waits to be checked at the end would keep the tables from being altered.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_trust"),
        ("classifier", "0010_filters"),
    ]

    operations = [
        # The way back makes the tables anew on SQLite too, and this comes last on it.
        insert_only_again(REPORT),
        insert_only_again(VOID),
        migrations.RemoveIndex(model_name="void", name="void_newest"),
        migrations.AddField("report", "laboratory", LaboratoryKey(of="case", null=True)),
        migrations.AddField("void", "laboratory", LaboratoryKey(of="subject", null=True)),
        migrations.RunPython(fill_laboratories, migrations.RunPython.noop),
        migrations.AlterField("report", "laboratory", LaboratoryKey(of="case")),
        migrations.AlterField("void", "laboratory", LaboratoryKey(of="subject")),
        # On SQLite the tables were made anew.
        insert_only(REPORT),
        insert_only(VOID),
        migrations.AddIndex(
            "report",
            models.Index(fields=["laboratory", "-signed_at", "-id", "kind"], name="report_laboratory_newest"),
        ),
        migrations.AddIndex(
            "void",
            models.Index(fields=["laboratory", "-at", "-id"], name="void_laboratory_newest"),
        ),
        migrations.AddIndex(
            "prediction",
            models.Index(fields=["laboratory", "label", "-created_at", "-id"], name="prediction_label_newest"),
        ),
        migrations.AddIndex(
            "review",
            models.Index(
                fields=["laboratory", "verdict", "-created_at", "-id", "final_label"], name="review_verdict_newest"
            ),
        ),
        migrations.AddIndex(
            "review",
            models.Index(fields=["laboratory", "final_label", "-created_at", "-id"], name="review_label_newest"),
        ),
    ]
