"""A case: one specimen under one accession number.

State of a Case (the moves stand in `classifier.case_transitions`):

    OPEN --first review--> IN_REVIEW --sign--> RELEASED | AMENDED | CORRECTED --amend, correct--> IN_REVIEW
    any of them --void--> VOID
"""

import uuid
from datetime import UTC, datetime
from typing import ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from accounts.models import Laboratory
from classifier.number_key import NumberKey
from classifier.querysets import CaseQuerySet


class CaseStatus(models.TextChoices):
    OPEN = "open", "Open"
    IN_REVIEW = "in_review", "In review"
    RELEASED = "released", "Released"
    AMENDED = "amended", "Amended"
    CORRECTED = "corrected", "Corrected"
    VOID = "void", "Void"


# A case in one of these takes images and reviews.
EDITABLE = frozenset({CaseStatus.OPEN, CaseStatus.IN_REVIEW})


class Case(models.Model):
    """One specimen under one accession number of a laboratory."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="cases", db_index=False)
    accession_number = models.CharField(max_length=64)
    patient_pseudonym = models.CharField(max_length=64, blank=True)
    specimen = models.CharField(max_length=80, blank=True)
    collected_at = models.DateTimeField(null=True, blank=True)
    wbc_value = models.DecimalField(
        "WBC, 10^9/L", max_digits=7, decimal_places=2, null=True, blank=True, validators=[MinValueValidator(0)]
    )
    wbc_source = models.CharField("source of the WBC", max_length=80, blank=True)
    status = models.CharField(max_length=20, choices=CaseStatus.choices, default=CaseStatus.OPEN)
    assigned_to = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="assigned_cases"
    )
    opened_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="opened_cases")
    opened_at = models.DateTimeField(auto_now_add=True)
    # When the last of its pictures was removed under a retention rule; None again once it is open to new ones.
    emptied_at = models.DateTimeField(null=True, editable=False)

    paging_field = "opened_at"

    objects = CaseQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint("laboratory", NumberKey("accession_number"), name="accession_number_unique"),
            models.CheckConstraint(condition=~Q(accession_number=""), name="case_has_accession_number"),
            models.CheckConstraint(condition=Q(wbc_value=None) | ~Q(wbc_source=""), name="wbc_value_has_source"),
            models.CheckConstraint(
                condition=Q(collected_at=None) | Q(collected_at__gte=datetime(1900, 1, 1, tzinfo=UTC)),
                name="collected_at_plausible",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["laboratory", "-opened_at", "-id"], name="case_laboratory_newest"),
            models.Index(fields=["laboratory", "patient_pseudonym"], name="case_pseudonym"),
            models.Index(fields=["laboratory", "status", "-opened_at", "-id"], name="case_status_newest"),
            # Where pictures may be due. In a list of parameters SQLite would not know the states again.
            models.Index(
                fields=["laboratory", "opened_at"],
                name="case_may_be_due",
                condition=Q(emptied_at=None) & ~Q(status="open") & ~Q(status="in_review"),
            ),
        ]

    def __str__(self) -> str:
        return self.accession_number

    @property
    def is_editable(self) -> bool:
        """Whether the case takes images and reviews: nothing is signed, or the report is being amended."""
        return self.status in EDITABLE
