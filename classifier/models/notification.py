"""What a person should know when they come back."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from classifier.models.case import Case
from classifier.models.report import Report


class NotificationKind(models.TextChoices):
    CASE_ASSIGNED = "case_assigned", "A case was assigned to you"
    IMAGES_DONE = "images_done", "All pictures of a case are classified"
    BATCH_FINISHED = "batch_finished", "A batch is finished"
    REPORT_AMENDED = "report_amended", "A report was amended"
    REPORT_CORRECTED = "report_corrected", "A report was corrected"
    EMERGENCY_ACCESS = "emergency_access", "Another laboratory opened a case in an emergency"


class Notification(models.Model):
    """A line in somebody's list. It holds ids only: what it shows is read anew, by what the reader may see."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="notifications", db_index=False)
    kind = models.CharField(max_length=24, choices=NotificationKind.choices)
    case = models.ForeignKey(Case, models.PROTECT, related_name="notifications")
    report = models.ForeignKey(Report, models.PROTECT, null=True, blank=True, related_name="notifications")
    at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True, blank=True)

    paging_field = "at"

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["user", "kind", "case"], condition=Q(read_at=None), name="one_unread_notification_of_a_kind"
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["user", "-at", "-id"], name="notification_newest"),
            models.Index(fields=["user"], name="notification_unread", condition=Q(read_at=None)),
        ]

    def __str__(self) -> str:
        return self.get_kind_display()
