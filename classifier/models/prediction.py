"""What a model version said about an image."""

import uuid
from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from accounts.facts import Fact
from classifier.models.image import CellImage
from classifier.models.laboratory_key import LaboratoryKey
from classifier.models.model_version import ModelVersion
from ml.labels import CELL_TYPES, display_name

CELL_TYPE_CHOICES = [(slug, display_name(slug)) for slug in CELL_TYPES]


class Prediction(Fact):
    """What one model version said about one image. Never edited; a newer model adds a row beside it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    image = models.ForeignKey(CellImage, models.PROTECT, related_name="predictions", db_index=False)
    laboratory = LaboratoryKey(of="image")
    model_version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="predictions")
    label = models.CharField(max_length=24, choices=CELL_TYPE_CHOICES, blank=True)
    suggestion = models.CharField(max_length=24, choices=CELL_TYPE_CHOICES, blank=True)
    confidence = models.FloatField()
    probabilities = models.JSONField()
    conformal_set = models.JSONField()
    abstained = models.BooleanField()
    reason_code = models.CharField(max_length=40, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    ood_score = models.FloatField("out-of-distribution score")
    box = models.JSONField("left, top, right, bottom in pixels", null=True)
    heat_map = models.JSONField("rows of values from 0 to 1 over the box", null=True)
    leukocytes = models.JSONField(
        "what was found in a field: box, label, suggestion, confidence, reason_code and reason of each", default=list
    )
    duration_ms = models.FloatField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["image", "model_version"], name="one_prediction_an_image_and_model"),
            models.CheckConstraint(
                condition=(Q(abstained=True, label="") & ~Q(reason="")) | (Q(abstained=False) & ~Q(label="")),
                name="prediction_has_label_or_abstains_with_reason",
            ),
            models.CheckConstraint(
                condition=Q(confidence__gte=0.0, confidence__lte=1.0), name="confidence_is_a_fraction"
            ),
        ]
        indexes: ClassVar = [
            # What follows the order is asked for: what does not fit is passed over within the index.
            models.Index(
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
            models.Index(fields=["laboratory", "label", "-created_at", "-id"], name="prediction_label_newest"),
        ]

    def __str__(self) -> str:
        return self.get_label_display() if self.label else "unidentified"

    @property
    def ranked_probabilities(self) -> list[tuple[str, float]]:
        """(cell type, calibrated probability), the most probable first."""
        ranked: dict[str, Any] = self.probabilities
        return sorted(ranked.items(), key=lambda pair: -pair[1])
