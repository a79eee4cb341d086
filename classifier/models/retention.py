"""How long pictures are kept, what must not go, and what was erased. All of it facts."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from accounts.facts import Fact
from accounts.models import Laboratory
from classifier.models.case import Case
from classifier.models.image import CellImage


class RetentionRule(Fact):
    """How many days after its release a case keeps its pictures; None: for ever. The newest of a laboratory counts."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="retention_rules")
    version = models.PositiveIntegerField()
    keep_days = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(30), MaxValueValidator(36_500)]
    )
    reason = models.TextField(max_length=500)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["laboratory", "-version"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["laboratory", "version"], name="retention_rule_version_unique"),
            models.CheckConstraint(
                condition=Q(keep_days=None) | Q(keep_days__gte=30), name="retention_at_least_30_days"
            ),
        ]

    def __str__(self) -> str:
        return "kept for ever" if self.keep_days is None else f"kept for {self.keep_days} days"


class LegalHold(Fact):
    """A case is put on hold, or the hold is lifted; the newest counts. What is on hold is not removed or erased."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, models.PROTECT, related_name="legal_holds")
    # Two people at once can't write the same step.
    version = models.PositiveIntegerField()
    holds = models.BooleanField()
    reason = models.TextField(max_length=500)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["case", "-version"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["case", "version"], name="legal_hold_version_unique"),
            models.CheckConstraint(condition=~Q(reason=""), name="legal_hold_has_reason"),
        ]

    def __str__(self) -> str:
        return "on hold" if self.holds else "hold lifted"


class RemovedPicture(Fact):
    """The original of an image was removed under a retention rule. Its row, hashes, predictions and reviews stay."""

    image = models.OneToOneField(CellImage, models.PROTECT, primary_key=True, related_name="removed_picture")
    rule = models.ForeignKey(RetentionRule, models.PROTECT, related_name="removed_pictures", db_index=False)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["rule", "-at", "-image"], name="removed_picture_newest")]

    def __str__(self) -> str:
        return str(self.image_id)


class PseudonymErasure(Fact):
    """A patient pseudonym was taken out of the cases of a laboratory: the evidence that there was one.

    `digest` is a keyed SHA-256, by which the question "was this one erased?" can be answered and the pseudonym not be
    found out.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="erasures")
    digest = models.CharField(max_length=64)
    cases = models.JSONField("ids of the cases")
    reason = models.TextField(max_length=500)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        constraints: ClassVar = [models.CheckConstraint(condition=~Q(reason=""), name="erasure_has_reason")]
        indexes: ClassVar = [models.Index(fields=["laboratory", "digest"], name="erasure_digest")]

    def __str__(self) -> str:
        return str(self.id)
