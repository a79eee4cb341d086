"""The rows of the clinical flow. Facts (Prediction) are insert-only; evidence is never deleted by cascade.

State of a CellImage (the moves stand in `classifier.transitions`, who makes them in `services` and `pipeline`):

     add_image        claim_batch           complete
     --------> QUEUED ---------> CLAIMED ------------> CLASSIFIED
                 ^  lost, or a fault, tries left |
                 +-------------------------------+--> FAILED  (permanent, or the third fault)
                 +-------------- requeue ------------ FAILED or CLASSIFIED (by a newer model)
"""

import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from accounts.facts import Fact
from accounts.models import Laboratory
from classifier.errors import FAILURES
from classifier.querysets import CaseQuerySet, CellImageQuerySet
from ml.labels import CELL_TYPES, display_name

CELL_TYPE_CHOICES = [(slug, display_name(slug)) for slug in CELL_TYPES]


class ModelVersion(models.Model):
    """A model bundle that was registered. Its labels are those it can say, in output order."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=80)
    version = models.CharField(max_length=40)
    sha256 = models.CharField("SHA-256 of the model file", max_length=64)
    labels = models.JSONField()
    preprocessing_version = models.CharField(max_length=40)
    metrics = models.JSONField(default=dict)
    active = models.BooleanField(default=False)
    registered_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["-registered_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["name", "version"], name="model_version_unique"),
            models.UniqueConstraint(fields=["active"], condition=Q(active=True), name="at_most_one_active_model"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def bundle_name(self) -> str:
        return f"{self.name}-{self.version}"


class WorkerHeartbeat(models.Model):
    """A worker process that is, or was, there; and the model that it holds, or the code of why it holds none."""

    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    model_sha256 = models.CharField(max_length=64, blank=True)
    model_code = models.CharField(max_length=40, blank=True)
    seen_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["host", "pid"], name="worker_heartbeat_unique")]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class CaseStatus(models.TextChoices):
    OPEN = "open", "Open"
    IN_REVIEW = "in_review", "In review"
    RELEASED = "released", "Released"
    AMENDED = "amended", "Amended"
    CORRECTED = "corrected", "Corrected"


class Case(models.Model):
    """One specimen under one accession number of a laboratory."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="cases")
    accession_number = models.CharField(max_length=64)
    patient_pseudonym = models.CharField(max_length=64, blank=True)
    specimen = models.CharField(max_length=80, blank=True)
    collected_at = models.DateTimeField(null=True, blank=True)
    wbc_value = models.DecimalField(
        "WBC, 10^9/L", max_digits=7, decimal_places=2, null=True, blank=True, validators=[MinValueValidator(0)]
    )
    wbc_source = models.CharField("source of the WBC", max_length=80, blank=True)
    status = models.CharField(max_length=20, choices=CaseStatus.choices, default=CaseStatus.OPEN)
    opened_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="opened_cases")
    opened_at = models.DateTimeField(auto_now_add=True)

    paging_field = "opened_at"

    objects = CaseQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint("laboratory", Lower("accession_number"), name="accession_number_unique"),
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
        ]

    def __str__(self) -> str:
        return self.accession_number


class ImageStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    CLAIMED = "claimed", "Being classified"
    CLASSIFIED = "classified", "Classified"
    REVIEWED = "reviewed", "Reviewed"
    FAILED = "failed", "Failed"


class Priority(models.IntegerChoices):
    """Lower goes first: a person who waits is served before a batch."""

    INTERACTIVE = 0, "Interactive"
    BATCH = 10, "Batch"


def original_path(image: "CellImage", filename: str) -> str:
    """A name of our own: nothing of the sender's file name reaches the file system, and a folder stays small."""
    extension = filename.rsplit(".", 1)[-1]
    return f"originals/{image.case.laboratory_id}/{image.id.hex[:2]}/{image.id}.{extension}"


class CellImage(models.Model):
    """One uploaded picture. This row is the queue: a Celery message only says that there is something to do."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, models.PROTECT, related_name="images")
    file = models.FileField(upload_to=original_path, max_length=200)
    original_name = models.CharField(max_length=255)
    received_sha256 = models.CharField("SHA-256 as received", max_length=64)
    stored_sha256 = models.CharField("SHA-256 as stored", max_length=64)
    pixels_sha256 = models.CharField("SHA-256 of the pixels", max_length=64, db_index=True)
    stored_bytes = models.PositiveIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    uploaded_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="uploaded_images")
    uploaded_at = models.DateTimeField(auto_now_add=True)

    status = models.CharField(max_length=12, choices=ImageStatus.choices, default=ImageStatus.QUEUED)
    priority = models.PositiveSmallIntegerField(choices=Priority.choices, default=Priority.INTERACTIVE)
    queued_at = models.DateTimeField()
    classified_at = models.DateTimeField(null=True, blank=True)
    claim_token = models.UUIDField(null=True, blank=True)
    claim_expires_at = models.DateTimeField(null=True, blank=True)
    claimed_alone = models.BooleanField(default=False)
    attempts = models.PositiveSmallIntegerField("claims so far", default=0)
    faults = models.PositiveSmallIntegerField("tries that count towards failing", default=0)
    failure_code = models.CharField(max_length=40, blank=True)

    paging_field = "uploaded_at"

    objects = CellImageQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["case", "pixels_sha256"], name="same_picture_once_in_a_case"),
            models.CheckConstraint(
                condition=Q(status="claimed", claim_token__isnull=False, claim_expires_at__isnull=False)
                | (~Q(status="claimed") & Q(claim_token=None, claim_expires_at=None)),
                name="claimed_has_token_and_expiry",
            ),
            models.CheckConstraint(
                condition=(Q(status="failed") & ~Q(failure_code="")) | (~Q(status="failed") & Q(failure_code="")),
                name="failed_has_code",
            ),
            models.CheckConstraint(condition=Q(status__in=ImageStatus.values), name="image_status_known"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["priority", "queued_at"], name="image_queue", condition=Q(status="queued")),
            models.Index(fields=["claim_expires_at"], name="image_claims", condition=Q(status="claimed")),
            models.Index(fields=["case", "-uploaded_at", "-id"], name="image_case_newest"),
            models.Index(fields=["uploaded_by", "-uploaded_at", "-id"], name="image_uploader_newest"),
            models.Index(fields=["-uploaded_at", "-id"], name="image_newest"),
            models.Index(fields=["classified_at"], name="image_classified_at"),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_waiting(self) -> bool:
        return self.status in {ImageStatus.QUEUED, ImageStatus.CLAIMED}

    @property
    def failure_message(self) -> str:
        # A code of a newer version, met after a roll-back, has no sentence here.
        return FAILURES.get(self.failure_code, "This picture could not be classified. Classify it by hand.")

    @property
    def latest_prediction(self) -> "Prediction | None":
        """The newest pre-classification; uses the rows of `with_predictions`, which come newest first."""
        return next(iter(self.predictions.all()), None)


class Prediction(Fact):
    """What one model version said about one image. Never edited; a newer model adds a row beside it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    image = models.ForeignKey(CellImage, models.PROTECT, related_name="predictions")
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

    def __str__(self) -> str:
        return self.get_label_display() if self.label else "unidentified"

    @property
    def ranked_probabilities(self) -> list[tuple[str, float]]:
        """(cell type, calibrated probability), the most probable first."""
        ranked: dict[str, Any] = self.probabilities
        return sorted(ranked.items(), key=lambda pair: -pair[1])
