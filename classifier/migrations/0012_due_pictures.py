from typing import Any

from django.conf import settings
from django.db import migrations, models
from django.db.models import PROTECT

from accounts.covered_indexes import without_index_for_patterns, without_own_index
from classifier.number_key import NumberKey

REMOVED = "SELECT {} FROM classifier_removedpicture removed JOIN classifier_cellimage image ON image.id = removed.image_id"
LEFT = (
    "SELECT 1 FROM classifier_cellimage image LEFT JOIN classifier_removedpicture removed "
    "ON removed.image_id = image.id WHERE image.case_id = classifier_case.id AND removed.image_id IS NULL"
)
# Cases of which a rule has removed every picture already.
FILL = (
    f"UPDATE classifier_case SET emptied_at = ({REMOVED.format('MAX(removed.at)')} WHERE image.case_id = classifier_case.id) "
    f"WHERE status NOT IN ('open', 'in_review') AND id IN ({REMOVED.format('image.case_id')}) AND NOT EXISTS ({LEFT})"
)


def key(to: str, related_name: str) -> "models.ForeignKey[Any, Any]":
    return models.ForeignKey(to, PROTECT, related_name=related_name, db_index=False)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_trust"),
        ("classifier", "0011_rare_rows"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField("case", "emptied_at", models.DateTimeField(null=True, editable=False)),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.AddIndex(
            "case",
            models.Index(
                fields=["laboratory", "opened_at"],
                name="case_may_be_due",
                condition=models.Q(emptied_at=None) & ~models.Q(status="open") & ~models.Q(status="in_review"),
            ),
        ),
        # The same rule, in an index that also knows what begins alike.
        migrations.RemoveConstraint("case", "accession_number_unique"),
        migrations.AddConstraint(
            "case",
            models.UniqueConstraint("laboratory", NumberKey("accession_number"), name="accession_number_unique"),
        ),
        # Each of these another index begins with.
        without_own_index("classifier_case", "laboratory", key("accounts.laboratory", "cases")),
        without_own_index("classifier_cellimage", "case", key("classifier.case", "images")),
        without_own_index("classifier_cellimage", "uploaded_by", key(settings.AUTH_USER_MODEL, "uploaded_images")),
        without_own_index("classifier_prediction", "image", key("classifier.cellimage", "predictions")),
        without_own_index("classifier_review", "image", key("classifier.cellimage", "reviews")),
        without_own_index("classifier_review", "reader", key(settings.AUTH_USER_MODEL, "reviews")),
        without_own_index("classifier_report", "case", key("classifier.case", "reports")),
        without_own_index("classifier_batch", "laboratory", key("accounts.laboratory", "batches")),
        without_own_index("classifier_batchmember", "batch", key("classifier.batch", "members")),
        without_own_index("classifier_notification", "user", key(settings.AUTH_USER_MODEL, "notifications")),
        without_own_index("classifier_removedpicture", "rule", key("classifier.retentionrule", "removed_pictures")),
        # Pictures are asked for by their very hash.
        without_index_for_patterns("classifier_cellimage", "pixels_sha256"),
    ]
