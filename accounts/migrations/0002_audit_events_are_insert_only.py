from django.db import migrations

from accounts.fact_triggers import insert_only


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [insert_only("accounts_auditevent")]
