"""A cell image: one uploaded picture, and its way through the queue and the review.

State of a CellImage (the moves stand in `classifier.transitions`, who makes them in `services` and `pipeline`):

     add_image        claim_batch           complete            review_image
     --------> QUEUED ---------> CLAIMED ------------> CLASSIFIED ---------> REVIEWED
                 ^  lost, or a fault, tries left |          <---withdrawn----  ^  |
                 +-------------------------------+--> FAILED ----- by hand ----+  |
                 |                                      ^ <------ withdrawn ------+
                 +-------------- requeue ------------ FAILED or CLASSIFIED (by a newer model)
"""

import uuid
from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from classifier.errors import FAILURES
from classifier.models.case import Case
from classifier.models.laboratory_key import LaboratoryKey
from classifier.querysets import CellImageQuerySet

if TYPE_CHECKING:
    from classifier.models.prediction import Prediction


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
    # Other indexes begin with it, here and wherever else a key has none of its own.
    case = models.ForeignKey(Case, models.PROTECT, related_name="images", db_index=False)
    laboratory = LaboratoryKey(of="case")
    file = models.FileField(upload_to=original_path, max_length=200)
    original_name = models.CharField(max_length=255)
    received_sha256 = models.CharField("SHA-256 as received", max_length=64)
    stored_sha256 = models.CharField("SHA-256 as stored", max_length=64)
    pixels_sha256 = models.CharField("SHA-256 of the pixels", max_length=64, db_index=True)
    stored_bytes = models.PositiveIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    uploaded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="uploaded_images", db_index=False
    )
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

    # The review that counts now. It moves in the transaction that writes the review: `classifier.services.reviews`.
    current_review = models.ForeignKey("classifier.Review", models.PROTECT, null=True, blank=True, related_name="+")
    has_thumbnail = models.BooleanField(default=False, db_default=False)

    # Within a priority the least turn goes first, so batches share; what is on hold is claimed by nobody.
    batch = models.ForeignKey("classifier.Batch", models.PROTECT, null=True, blank=True, related_name="images")
    on_hold = models.BooleanField(default=False, db_default=False)
    turn = models.PositiveIntegerField(default=0, db_default=0)
    # Void because its batch was cancelled before it was classified: the same picture may come again.
    cancelled = models.BooleanField(default=False, db_default=False)

    paging_field = "uploaded_at"

    objects = CellImageQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["case", "pixels_sha256"], name="same_picture_once_in_a_case", condition=Q(cancelled=False)
            ),
            models.CheckConstraint(
                condition=Q(status="claimed", claim_token__isnull=False, claim_expires_at__isnull=False)
                | (~Q(status="claimed") & Q(claim_token=None, claim_expires_at=None)),
                name="claimed_has_token_and_expiry",
            ),
            models.CheckConstraint(
                condition=(Q(status="failed") & ~Q(failure_code="")) | (~Q(status="failed") & Q(failure_code="")),
                name="failed_has_code",
            ),
            models.CheckConstraint(
                condition=Q(status="reviewed", current_review__isnull=False)
                | (~Q(status="reviewed") & Q(current_review=None)),
                name="reviewed_has_review",
            ),
            models.CheckConstraint(condition=Q(status__in=ImageStatus.values), name="image_status_known"),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["priority", "turn", "queued_at", "id"],
                name="image_queue",
                condition=Q(status="queued", on_hold=False),
            ),
            models.Index(fields=["claim_expires_at"], name="image_claims", condition=Q(status="claimed")),
            models.Index(fields=["case", "-uploaded_at", "-id"], name="image_case_newest"),
            models.Index(fields=["uploaded_by", "-uploaded_at", "-id"], name="image_uploader_newest"),
            models.Index(fields=["laboratory", "-uploaded_at", "-id"], name="image_laboratory_newest"),
            models.Index(fields=["classified_at"], name="image_classified_at"),
            models.Index(fields=["status"], name="image_status"),
            models.Index(fields=["laboratory", "status", "-uploaded_at", "-id"], name="image_laboratory_status"),
            models.Index(fields=["laboratory", "failure_code"], name="image_failed", condition=Q(status="failed")),
            models.Index(
                fields=["id"],
                name="image_without_thumbnail",
                # What is left is classified or reviewed; in a list of parameters SQLite would not know these again.
                condition=Q(has_thumbnail=False) & ~Q(status="queued") & ~Q(status="claimed") & ~Q(status="failed"),
            ),
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
    def is_void(self) -> bool:
        return hasattr(self, "void")

    @property
    def latest_prediction(self) -> "Prediction | None":
        """The newest pre-classification; uses the rows of `with_predictions`, which come newest first."""
        return next(iter(self.predictions.all()), None)
