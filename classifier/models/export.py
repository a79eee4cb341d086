"""Tables that are written by the worker and fetched later: nobody waits for them in a request."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.models import Laboratory


class ExportKind(models.TextChoices):
    PREDICTIONS = "predictions", "Predictions"
    REVIEWS = "reviews", "Reviews"
    AUDIT_EVENTS = "audit_events", "Audit trail"
    DE_IDENTIFIED = "de_identified", "De-identified pictures and reviews"


def export_path(export: "Export", filename: str) -> str:
    return f"exports/{export.laboratory_id}/{export.id}.{filename.rsplit('.', 1)[-1]}"


class Export(models.Model):
    """One wish for a table of a laboratory. Waiting while `finished_at` is empty; the file goes at `expires_at`.

    `filters` holds ids, codes and dates only. A worker holds it under a token that expires, as it holds an image.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="exports")
    kind = models.CharField(max_length=20, choices=ExportKind.choices)
    filters = models.JSONField(default=dict)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="exports")
    requested_at = models.DateTimeField(auto_now_add=True)
    claim_token = models.UUIDField(null=True, blank=True)
    claim_expires_at = models.DateTimeField(null=True, blank=True)
    faults = models.PositiveSmallIntegerField(default=0)
    rows_total = models.PositiveIntegerField(null=True, blank=True)
    rows_written = models.PositiveIntegerField(default=0)
    finished_at = models.DateTimeField(null=True, blank=True)
    failure_code = models.CharField(max_length=40, blank=True)
    file = models.FileField(upload_to=export_path, max_length=200, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    paging_field = "requested_at"

    class Meta:
        ordering: ClassVar = ["-requested_at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["laboratory", "-requested_at", "-id"], name="export_newest"),
            models.Index(fields=["requested_at"], name="export_waiting", condition=Q(finished_at=None)),
        ]

    def __str__(self) -> str:
        return str(self.id)
