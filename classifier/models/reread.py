"""Blind re-reads: cells that were reviewed with the model's suggestion in view are read again without it."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from accounts.facts import Fact
from accounts.models import Laboratory
from classifier.models.image import CellImage
from classifier.models.prediction import CELL_TYPE_CHOICES
from classifier.models.review import Review


class BlindReread(models.Model):
    """A random draw of reviewed cells for one reader. Open until every cell is read or it is closed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="rereads")
    reader = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="rereads")
    drawn_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="drawn_rereads")
    drawn_at = models.DateTimeField(auto_now_add=True)
    reviewed_from = models.DateField(null=True, blank=True)
    reviewed_to = models.DateField(null=True, blank=True)
    drawn_from = models.PositiveIntegerField("cells that could have been drawn")
    size = models.PositiveIntegerField(validators=[MinValueValidator(1), MaxValueValidator(1000)])
    seed = models.CharField(max_length=32)
    closed_at = models.DateTimeField(null=True, blank=True)

    paging_field = "drawn_at"

    class Meta:
        ordering: ClassVar = ["-drawn_at", "-id"]
        indexes: ClassVar = [models.Index(fields=["laboratory", "-drawn_at", "-id"], name="reread_newest")]

    def __str__(self) -> str:
        return str(self.id)


class RereadCell(Fact):
    """One drawn cell, and the review with the suggestion in view that counted when it was drawn."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    reread = models.ForeignKey(BlindReread, models.PROTECT, related_name="cells")
    position = models.PositiveIntegerField()
    image = models.ForeignKey(CellImage, models.PROTECT, related_name="+")
    review = models.ForeignKey(Review, models.PROTECT, related_name="+")

    class Meta:
        ordering: ClassVar = ["reread", "position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["reread", "position"], name="reread_position_unique"),
            models.UniqueConstraint(fields=["reread", "image"], name="reread_image_unique"),
        ]

    def __str__(self) -> str:
        return f"cell {self.position}"


class BlindReading(Fact):
    """What the reader said of one drawn cell without the model's answer. Empty `label`: of no use as a picture."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    cell = models.OneToOneField(RereadCell, models.PROTECT, related_name="reading")
    reader = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    label = models.CharField(max_length=24, choices=CELL_TYPE_CHOICES, blank=True)
    unusable = models.BooleanField(default=False)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(unusable=True, label="") | (Q(unusable=False) & ~Q(label="")),
                name="blind_reading_has_label_or_is_unusable",
            )
        ]

    def __str__(self) -> str:
        return self.get_label_display() if self.label else "unusable"
