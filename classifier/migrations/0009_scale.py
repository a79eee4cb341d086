from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

import classifier.models.laboratory_key
from accounts.fact_triggers import insert_only, insert_only_again

PREDICTION, REVIEW = "classifier_prediction", "classifier_review"
FILL = (
    """UPDATE classifier_cellimage SET laboratory_id =
       (SELECT laboratory_id FROM classifier_case WHERE classifier_case.id = case_id)""",
    f"""UPDATE {PREDICTION} SET laboratory_id =
       (SELECT laboratory_id FROM classifier_cellimage WHERE classifier_cellimage.id = image_id)""",
    f"""UPDATE {REVIEW} SET laboratory_id =
       (SELECT laboratory_id FROM classifier_cellimage WHERE classifier_cellimage.id = image_id)""",
)


MADE_AGAIN = (
    ("cellimage", models.Index(fields=["case", "-uploaded_at", "-id"], name="image_case_newest")),
    ("cellimage", models.Index(fields=["uploaded_by", "-uploaded_at", "-id"], name="image_uploader_newest")),
    ("cellimage", models.Index(fields=["classified_at"], name="image_classified_at")),
    ("cellimage", models.Index(fields=["status"], name="image_status")),
    ("review", models.Index(fields=["image", "-created_at"], name="review_image_newest")),
    ("review", models.Index(fields=["reader", "-created_at"], name="review_reader_newest")),
)


def fill_laboratories(apps: StateApps, editor: BaseDatabaseSchemaEditor) -> None:
    """Give the rows of before their laboratory. The triggers of the facts are off meanwhile, in this transaction."""
    on_postgresql = editor.connection.vendor == "postgresql"
    with editor.connection.cursor() as cursor:
        for table in (PREDICTION, REVIEW):
            cursor.execute(
                f"DROP TRIGGER IF EXISTS {table}_insert_only ON {table}"
                if on_postgresql
                else f"DROP TRIGGER IF EXISTS {table}_never_changed"
            )
        for statement in FILL:
            cursor.execute(statement)
        if on_postgresql:
            # What waits to be checked at the end would keep the tables from being altered.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def laboratory(of: str, **options: bool) -> classifier.models.laboratory_key.LaboratoryKey:
    return classifier.models.laboratory_key.LaboratoryKey(of=of, **options)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_trust"),
        ("classifier", "0008_trust"),
    ]

    operations = [
        # The way back makes the tables anew on SQLite too, and this comes last on it.
        insert_only_again(PREDICTION),
        insert_only_again(REVIEW),
        # Every row is written anew, and would be in each of these once more: they are made again at the end.
        *(migrations.RemoveIndex(model, index.name) for model, index in MADE_AGAIN),
        migrations.RemoveIndex(model_name="cellimage", name="image_newest"),
        migrations.RemoveIndex(model_name="cellimage", name="image_failed"),
        migrations.RemoveIndex(model_name="prediction", name="prediction_newest"),
        migrations.RemoveIndex(model_name="prediction", name="prediction_of_model_newest"),
        migrations.RemoveIndex(model_name="review", name="review_newest"),
        migrations.AddField("cellimage", "laboratory", laboratory("case", null=True)),
        migrations.AddField("prediction", "laboratory", laboratory("image", null=True)),
        migrations.AddField("review", "laboratory", laboratory("image", null=True)),
        migrations.RunPython(fill_laboratories, migrations.RunPython.noop),
        migrations.AlterField("cellimage", "laboratory", laboratory("case")),
        migrations.AlterField("prediction", "laboratory", laboratory("image")),
        migrations.AlterField("review", "laboratory", laboratory("image")),
        # On SQLite the tables were made anew.
        insert_only(PREDICTION),
        insert_only(REVIEW),
        migrations.AddIndex(
            "cellimage",
            models.Index(fields=["laboratory", "-uploaded_at", "-id"], name="image_laboratory_newest"),
        ),
        migrations.AddIndex(
            "cellimage",
            models.Index(fields=["laboratory", "status", "-uploaded_at", "-id"], name="image_laboratory_status"),
        ),
        migrations.AddIndex(
            "cellimage",
            models.Index(
                condition=models.Q(("status", "failed")), fields=["laboratory", "failure_code"], name="image_failed"
            ),
        ),
        migrations.AddIndex(
            "prediction",
            models.Index(fields=["laboratory", "-created_at", "-id"], name="prediction_laboratory_newest"),
        ),
        migrations.AddIndex(
            "review",
            models.Index(fields=["laboratory", "-created_at", "-id"], name="review_laboratory_newest"),
        ),
        *(migrations.AddIndex(model, index) for model, index in MADE_AGAIN),
    ]
