"""What was signed: reports, and the decisions to amend or correct them."""

import uuid
from hashlib import sha256
from json import loads
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.facts import Fact
from classifier.models.case import Case
from classifier.models.laboratory_key import LaboratoryKey


class ReportKind(models.TextChoices):
    RELEASED = "released", "Released"
    AMENDED = "amended", "Amended"
    CORRECTED = "corrected", "Corrected"


class AmendmentKind(models.TextChoices):
    AMENDED = "amended", "Amended"
    CORRECTED = "corrected", "Corrected"


class Report(Fact):
    """One signed version of a case's report. `payload_json` is canonical JSON, `sha256` that of exactly its bytes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, models.PROTECT, related_name="reports", db_index=False)
    laboratory = LaboratoryKey(of="case")
    version = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=ReportKind.choices)
    payload_json = models.TextField("frozen content")
    sha256 = models.CharField("SHA-256 of the content", max_length=64)
    signed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="signed_reports")
    reason = models.TextField(max_length=500, blank=True)
    signed_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["case", "-version"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["case", "version"], name="report_version_unique"),
            models.CheckConstraint(
                condition=Q(kind="released", version=1) | (~Q(kind="released") & Q(version__gt=1) & ~Q(reason="")),
                name="later_versions_say_why",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["laboratory", "-signed_at", "-id", "kind"], name="report_laboratory_newest"),
        ]

    def __str__(self) -> str:
        return f"version {self.version}, {self.get_kind_display().lower()}"

    @property
    def payload(self) -> dict[str, Any]:
        content: dict[str, Any] = loads(self.payload_json)
        return content

    @property
    def is_whole(self) -> bool:
        """Whether the stored content is still what was signed."""
        return sha256(self.payload_json.encode()).hexdigest() == self.sha256


class Amendment(Fact):
    """The decision to amend or correct a report: the case is open again until the next version is signed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, models.PROTECT, related_name="amendments")
    # One decision a version: two people at once can't open a case twice.
    report = models.OneToOneField(Report, models.PROTECT, related_name="amendment")
    kind = models.CharField(max_length=12, choices=AmendmentKind.choices)
    reason = models.TextField(max_length=500)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="amendments")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        constraints: ClassVar = [models.CheckConstraint(condition=~Q(reason=""), name="amendment_has_reason")]

    def __str__(self) -> str:
        return f"{self.get_kind_display().lower()} after version {self.report.version}"
