"""The cure for a wrong patient or a wrong picture: taken out of everything that counts, and never gone."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.facts import Fact
from classifier.models.case import Case
from classifier.models.image import CellImage
from classifier.models.laboratory_key import LaboratoryKey


class Void(Fact):
    """A case, or one image, was entered in error. It leaves every differential and stays readable."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.OneToOneField(Case, models.PROTECT, null=True, blank=True, related_name="void")
    image = models.OneToOneField(CellImage, models.PROTECT, null=True, blank=True, related_name="void")
    laboratory = LaboratoryKey(of="subject")
    reason = models.TextField(max_length=500)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="voids")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(case=None, image__isnull=False) | Q(case__isnull=False, image=None),
                name="void_is_of_one_case_or_one_image",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="void_has_reason"),
        ]
        indexes: ClassVar = [models.Index(fields=["laboratory", "-at", "-id"], name="void_laboratory_newest")]

    @property
    def subject(self) -> Case | CellImage:
        """What was entered in error."""
        # Never neither: void_is_of_one_case_or_one_image.
        return self.case or self.image  # type: ignore[return-value]

    def __str__(self) -> str:
        return f"void {self.case_id or self.image_id}"
