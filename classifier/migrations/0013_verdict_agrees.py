from django.db import migrations

from classifier.verdict_trigger import verdict_agrees


class Migration(migrations.Migration):
    dependencies = [("classifier", "0012_due_pictures")]

    operations = [verdict_agrees()]
