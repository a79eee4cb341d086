"""A batch: many pictures handed in at once. Its state and its counts are those of its rows, never of a counter.

CHECKING --every file looked at--> (waits for a person, when the page asked) --start--> RUNNING --> FINISHED
RUNNING <--pause, resume--> PAUSED          any but FINISHED --cancel--> CANCELLED
"""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.facts import Fact
from accounts.models import Laboratory
from classifier.models.case import Case
from classifier.models.image import CellImage
from classifier.models.prediction import CELL_TYPE_CHOICES
from classifier.querysets import BatchQuerySet

# The code of a file that shows the same picture as another one: counted, and never doubled.
SAME_PICTURE = "same_picture"


class BatchState(models.TextChoices):
    CHECKING = "checking", "Checking"
    RUNNING = "running", "Running"
    PAUSED = "paused", "Paused"
    CANCELLED = "cancelled", "Cancelled"
    FINISHED = "finished", "Finished"


def archive_path(batch: "Batch", filename: str) -> str:
    """A name of our own: nothing of the sender's file name reaches the file system."""
    return f"archives/{batch.laboratory_id}/{batch.id}.zip"


class Batch(models.Model):
    """Pictures of one submission, all for one case. `archive` is empty for a folder that the command line reads.

    The check is a claimed step that can be taken up again: `members_checked` says how far it has come of
    `members_total`. Images stay on hold until the batch is started. Who hands in a folder holds the claim while files
    are added; such a batch is started from the beginning. `refused_code` is why an archive was refused whole.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="batches", db_index=False)
    case = models.ForeignKey(Case, models.PROTECT, related_name="batches")
    submitted_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="batches")
    submitted_at = models.DateTimeField(auto_now_add=True)
    archive = models.FileField(upload_to=archive_path, max_length=200, blank=True)
    archive_bytes = models.PositiveBigIntegerField(default=0)
    asks_before_start = models.BooleanField(default=False)
    # Where the batch stands in the line of all batches: the turn of its first image.
    first_turn = models.PositiveIntegerField(default=0)

    members_total = models.PositiveIntegerField(null=True, blank=True)
    members_checked = models.PositiveIntegerField(default=0)
    checked_at = models.DateTimeField(null=True, blank=True)
    refused_code = models.CharField(max_length=40, blank=True)
    check_faults = models.PositiveSmallIntegerField("workers lost over the next file", default=0)
    claim_token = models.UUIDField(null=True, blank=True)
    claim_expires_at = models.DateTimeField(null=True, blank=True)

    started_at = models.DateTimeField(null=True, blank=True)
    paused_at = models.DateTimeField(null=True, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    paging_field = "submitted_at"

    objects = BatchQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "batches"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(claim_token=None, claim_expires_at=None)
                | Q(claim_token__isnull=False, claim_expires_at__isnull=False),
                name="batch_claim_has_token_and_expiry",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["laboratory", "-submitted_at", "-id"], name="batch_laboratory_newest"),
            models.Index(fields=["submitted_at"], name="batch_open", condition=Q(finished_at=None, cancelled_at=None)),
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def state(self) -> BatchState:
        if self.cancelled_at:
            return BatchState.CANCELLED
        if self.finished_at:
            return BatchState.FINISHED
        if self.paused_at:
            return BatchState.PAUSED
        return BatchState.RUNNING if self.started_at else BatchState.CHECKING

    @property
    def waits_for_start(self) -> bool:
        """Everything is checked, and a person is to say whether it starts."""
        return self.state == BatchState.CHECKING and self.checked_at is not None


class BatchMember(Fact):
    """One file of a batch, as it was judged: `image` is what it became, or the image of which it shows the picture.

    `code` is empty for an accepted picture; `message` is the sentence of the refusal. `name` is the file's path as the
    sender wrote it, which may hold patient text: it stays among those who see the case. `label` is what the sender's
    labels.csv says that the picture shows. Complaints about a line of labels.csv come after the last file.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    batch = models.ForeignKey(Batch, models.PROTECT, related_name="members", db_index=False)
    number = models.PositiveIntegerField("place in the submission")
    name = models.CharField(max_length=300)
    image = models.ForeignKey(CellImage, models.PROTECT, null=True, blank=True, related_name="batch_members")
    code = models.CharField(max_length=40, blank=True)
    message = models.CharField(max_length=300, blank=True)
    label = models.CharField(max_length=24, choices=CELL_TYPE_CHOICES, blank=True)

    class Meta:
        ordering: ClassVar = ["batch", "number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["batch", "number"], name="batch_member_once"),
            models.CheckConstraint(
                condition=Q(code="", image__isnull=False)
                | Q(code=SAME_PICTURE, image__isnull=False)
                | (~Q(code__in=("", SAME_PICTURE)) & Q(image=None)),
                name="batch_member_is_an_image_or_refused",
            ),
        ]

    def __str__(self) -> str:
        return self.code or "accepted"
