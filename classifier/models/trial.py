"""Trying a model version on a case before anybody makes it the active one."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.facts import Fact
from classifier.models.case import Case
from classifier.models.image import CellImage
from classifier.models.model_version import ModelVersion
from classifier.models.prediction import CELL_TYPE_CHOICES


class ModelTrial(models.Model):
    """One model version tried on the images of one case. It changes nothing that counts.

    Waiting while `finished_at` is empty; `failure_code` says why it came to nothing.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, models.PROTECT, related_name="trials")
    model_version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="trials")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="trials")
    requested_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    failure_code = models.CharField(max_length=40, blank=True)

    paging_field = "requested_at"

    class Meta:
        ordering: ClassVar = ["-requested_at", "-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["case", "model_version"], condition=Q(finished_at=None), name="one_waiting_trial_of_a_model"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model_version} on {self.case_id}"


class TrialPrediction(Fact):
    """What the tried model said about one image, beside the prediction that counts."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    trial = models.ForeignKey(ModelTrial, models.PROTECT, related_name="predictions")
    image = models.ForeignKey(CellImage, models.PROTECT, related_name="trial_predictions")
    label = models.CharField(max_length=24, choices=CELL_TYPE_CHOICES, blank=True)
    suggestion = models.CharField(max_length=24, choices=CELL_TYPE_CHOICES, blank=True)
    confidence = models.FloatField()
    conformal_set = models.JSONField()
    abstained = models.BooleanField()
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["trial", "image"], name="one_trial_prediction_an_image"),
        ]

    def __str__(self) -> str:
        return self.get_label_display() if self.label else "unidentified"
