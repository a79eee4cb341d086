from django.db import migrations, models

from accounts.fact_triggers import insert_only


def keep_default(apps, editor):
    # A worker of the version before goes on inserting until it is replaced.
    if editor.connection.vendor == "postgresql":
        editor.execute("ALTER TABLE classifier_prediction ALTER COLUMN leukocytes SET DEFAULT '[]'::jsonb")


class Migration(migrations.Migration):
    dependencies = [("classifier", "0002_predictions_are_insert_only")]

    operations = [
        migrations.AddField(
            model_name="prediction",
            name="leukocytes",
            field=models.JSONField(
                default=list,
                verbose_name="what was found in a field: box, label, suggestion, confidence, reason_code and reason of each",
            ),
        ),
        migrations.RunPython(keep_default, migrations.RunPython.noop),
        # SQLite makes the table anew for a new column, without its triggers.
        insert_only("classifier_prediction"),
    ]
