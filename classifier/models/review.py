"""What a person said about an image."""

import uuid
from datetime import UTC
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.facts import Fact
from classifier.models.image import CellImage
from classifier.models.laboratory_key import LaboratoryKey
from classifier.models.prediction import CELL_TYPE_CHOICES, Prediction


class Verdict(models.TextChoices):
    CONFIRMED = "CONFIRMED", "Confirmed"
    CORRECTED = "CORRECTED", "Corrected"
    MANUAL = "MANUAL", "Read by hand"
    UNUSABLE = "UNUSABLE", "Unusable"
    WITHDRAWN = "WITHDRAWN", "Withdrawn"


LABELLED = ("CONFIRMED", "CORRECTED", "MANUAL")


class Review(Fact):
    """One verdict of one reader. The newest counts; a withdrawal makes the one before the withdrawn count again.

    `previous` is the review that counted when this one was written, and for a withdrawal the one that it withdraws;
    so the reviews of an image are a chain, and nobody's is overwritten unseen. `failure_code` is that of the failed
    image that was read by hand: a withdrawal gives it back.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    image = models.ForeignKey(CellImage, models.PROTECT, related_name="reviews", db_index=False)
    laboratory = LaboratoryKey(of="image")
    prediction = models.ForeignKey(Prediction, models.PROTECT, null=True, blank=True, related_name="reviews")
    reader = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="reviews", db_index=False)
    verdict = models.CharField(max_length=12, choices=Verdict.choices)
    final_label = models.CharField(max_length=24, choices=CELL_TYPE_CHOICES, blank=True)
    comment = models.TextField(max_length=1000, blank=True)
    previous = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="+")
    failure_code = models.CharField(max_length=40, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    # `classifier.verdict_trigger`
    also_refused = ("verdict_agrees",)

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=(Q(verdict__in=LABELLED) & ~Q(final_label=""))
                | Q(verdict__in=("UNUSABLE", "WITHDRAWN"), final_label=""),
                name="review_has_label_where_it_needs_one",
            ),
            models.CheckConstraint(
                condition=~Q(verdict__in=("CONFIRMED", "CORRECTED")) | Q(prediction__isnull=False),
                name="review_of_a_prediction_names_it",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["image", "-created_at"], name="review_image_newest"),
            models.Index(fields=["reader", "-created_at"], name="review_reader_newest"),
            # An image that is read again, or whose review is withdrawn.
            models.Index(
                fields=["laboratory", "-created_at", "-id"], name="review_again", condition=Q(previous__isnull=False)
            ),
            # What follows the order is asked for: what does not fit is passed over within the index.
            models.Index(
                fields=["laboratory", "-created_at", "-id", "verdict", "final_label"], name="review_laboratory_newest"
            ),
            models.Index(
                fields=["laboratory", "verdict", "-created_at", "-id", "final_label"], name="review_verdict_newest"
            ),
            models.Index(fields=["laboratory", "final_label", "-created_at", "-id"], name="review_label_newest"),
        ]

    def __str__(self) -> str:
        return self.get_verdict_display()

    def as_dict(self) -> dict[str, Any]:
        """The review as the API shows it."""
        return {
            "id": str(self.pk),
            "verdict": self.verdict,
            "final_label": self.final_label or None,
            "comment": self.comment,
            "reader": str(self.reader),
            "previous": str(self.previous_id) if self.previous_id else None,
            "created_at": self.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        }

    @property
    def by_hand(self) -> bool:
        """Whether a failed image was read without the model."""
        return bool(self.failure_code) or self.prediction_id is None
