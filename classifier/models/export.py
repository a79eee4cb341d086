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


class ExportState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    WRITING = "writing", "Being written"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    WITHDRAWN = "withdrawn", "Withdrawn"
    EXPIRED = "expired", "File removed"


# Why an export came to nothing.
WITHDRAWN = "withdrawn"
EXPORT_FAILURES: dict[str, str] = {
    WITHDRAWN: "It was withdrawn before it was finished.",
    "export_failed": "Writing it failed three times, so it was given up. Ask for it again; if that fails as well, tell "
    "your administrator.",
    "export_too_large": "It became larger than one file of the object store may be. Ask for a part, by filters.",
}


def export_path(export: "Export", filename: str) -> str:
    return f"exports/{export.laboratory_id}/{export.id}.{filename.rsplit('.', 1)[-1]}"


class Export(models.Model):
    """One wish for a table of a laboratory. Waiting while `finished_at` is empty; the file goes at `expires_at`.

    `filters` holds ids, codes and dates only: {name: [value, ...]}. A worker holds it under a token that expires, as it
    holds an image, and for one slice at a time: `position` is where the next slice begins, `bytes_written` how much of
    `file` counts until then. The file may be fetched only once the export is ready.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="exports")
    kind = models.CharField(max_length=20, choices=ExportKind.choices)
    filters = models.JSONField(default=dict)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="exports")
    requested_at = models.DateTimeField(auto_now_add=True)
    claim_token = models.UUIDField(null=True, blank=True)
    claim_expires_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    faults = models.PositiveSmallIntegerField(default=0)
    position = models.JSONField(null=True, blank=True)
    rows_total = models.PositiveIntegerField(null=True, blank=True)
    rows_written = models.PositiveIntegerField(default=0)
    bytes_written = models.PositiveBigIntegerField(default=0)
    finished_at = models.DateTimeField(null=True, blank=True)
    failure_code = models.CharField(max_length=40, blank=True)
    file = models.FileField(upload_to=export_path, max_length=200, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)

    paging_field = "requested_at"

    class Meta:
        ordering: ClassVar = ["-requested_at", "-id"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(claim_token=None, claim_expires_at=None)
                | Q(claim_token__isnull=False, claim_expires_at__isnull=False, finished_at=None),
                name="export_claim_has_token_and_expiry",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["laboratory", "-requested_at", "-id"], name="export_newest"),
            models.Index(fields=["requested_at"], name="export_waiting", condition=Q(finished_at=None)),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def state(self) -> ExportState:
        if self.finished_at is None:
            return ExportState.WRITING if self.started_at else ExportState.WAITING
        if self.failure_code:
            return ExportState.WITHDRAWN if self.failure_code == WITHDRAWN else ExportState.FAILED
        return ExportState.READY if self.file else ExportState.EXPIRED

    @property
    def failure_message(self) -> str:
        # A code of a newer version, met after a roll-back, has no sentence here.
        return EXPORT_FAILURES.get(self.failure_code, "It could not be written.") if self.failure_code else ""
