from django.db import migrations, models

from accounts.covered_indexes import without_own_index

LABORATORY = models.ForeignKey(
    "accounts.laboratory", models.PROTECT, null=True, related_name="audit_events", db_index=False
)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_trust")]

    # audit_laboratory_newest begins with it.
    operations = [without_own_index("accounts_auditevent", "laboratory", LABORATORY)]
