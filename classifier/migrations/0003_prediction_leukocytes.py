from django.db import migrations, models

from accounts.fact_triggers import insert_only


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
        # SQLite makes the table anew for a new column, without its triggers.
        insert_only("classifier_prediction"),
    ]
