"""What a laboratory decides for itself, version by version."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from accounts.facts import Fact
from accounts.models import Laboratory


class LaboratorySettings(Fact):
    """One version of a laboratory's ranges, codes and policies. The newest counts; reports name the one they used.

    `cell_types` is in the laboratory's order: `{"slug", "range_low", "range_high", "loinc"}` each, the ranges in
    percent of leukocytes or null. `abstain_below` is a confidence (a fraction) under which a class becomes a mere
    suggestion.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="settings_versions")
    version = models.PositiveIntegerField()
    target_count = models.PositiveIntegerField(
        default=100, validators=[MinValueValidator(1), MaxValueValidator(10_000)]
    )
    uploader_may_release = models.BooleanField(default=True)
    abstain_below = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0.0), MaxValueValidator(0.999)]
    )
    time_zone = models.CharField(max_length=64, default="UTC")
    cell_types = models.JSONField()
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "laboratory settings"
        ordering: ClassVar = ["laboratory", "-version"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["laboratory", "version"], name="laboratory_settings_version_unique"),
            models.CheckConstraint(
                condition=models.Q(version__gte=1, target_count__gte=1), name="laboratory_settings_plausible"
            ),
        ]

    def __str__(self) -> str:
        return f"version {self.version}"
