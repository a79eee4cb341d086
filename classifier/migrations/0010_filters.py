from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_trust"),
        ("classifier", "0009_scale"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="cellimage",
            name="image_without_thumbnail",
        ),
        migrations.RemoveIndex(
            model_name="prediction",
            name="prediction_laboratory_newest",
        ),
        migrations.RemoveIndex(
            model_name="review",
            name="review_laboratory_newest",
        ),
        migrations.AddIndex(
            model_name="cellimage",
            index=models.Index(
                condition=models.Q(
                    ("has_thumbnail", False),
                    models.Q(("status", "queued"), _negated=True),
                    models.Q(("status", "claimed"), _negated=True),
                    models.Q(("status", "failed"), _negated=True),
                ),
                fields=["id"],
                name="image_without_thumbnail",
            ),
        ),
        migrations.AddIndex(
            model_name="prediction",
            index=models.Index(
                fields=[
                    "laboratory",
                    "-created_at",
                    "-id",
                    "label",
                    "suggestion",
                    "confidence",
                    "abstained",
                    "reason_code",
                ],
                name="prediction_laboratory_newest",
            ),
        ),
        migrations.AddIndex(
            model_name="removedpicture",
            index=models.Index(fields=["rule", "-at", "-image"], name="removed_picture_newest"),
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(
                condition=models.Q(("previous__isnull", False)),
                fields=["laboratory", "-created_at", "-id"],
                name="review_again",
            ),
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(
                fields=["laboratory", "-created_at", "-id", "verdict", "final_label"], name="review_laboratory_newest"
            ),
        ),
        migrations.AddIndex(
            model_name="void",
            index=models.Index(fields=["-at", "-id"], name="void_newest"),
        ),
    ]
