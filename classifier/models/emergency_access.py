"""Break-glass: one case of another laboratory, for an hour, with a reason, seen by everybody concerned."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.facts import Fact
from classifier.models.case import Case


class EmergencyAccess(Fact):
    """Somebody opened one case of another laboratory. It reads until `expires_at` and changes nothing."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    case = models.ForeignKey(Case, models.PROTECT, related_name="emergency_accesses")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="emergency_accesses")
    reason = models.TextField(max_length=500)
    opened_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    paging_field = "opened_at"

    class Meta:
        verbose_name_plural = "emergency accesses"
        ordering: ClassVar = ["-opened_at", "-id"]
        constraints: ClassVar = [models.CheckConstraint(condition=~Q(reason=""), name="emergency_access_has_reason")]
        indexes: ClassVar = [models.Index(fields=["user", "expires_at"], name="emergency_access_of_user")]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_over(self) -> bool:
        return hasattr(self, "end") or self.expires_at <= timezone.now()


class EmergencyEnd(Fact):
    """An access was ended before its hour was over: by who had opened it, or by the laboratory of the case."""

    access = models.OneToOneField(EmergencyAccess, models.PROTECT, primary_key=True, related_name="end")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.access_id)


class EmergencyMail(models.Model):
    """A mail that tells somebody of an access: due as long as `next_try_at` is set; `sent_at` says that it went out."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    access = models.ForeignKey(EmergencyAccess, models.PROTECT, related_name="mails")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    tries = models.PositiveSmallIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["access", "user"], name="one_mail_a_person_and_access")
        ]
        indexes: ClassVar = [
            models.Index(fields=["next_try_at"], name="emergency_mail_due", condition=Q(next_try_at__isnull=False))
        ]

    def __str__(self) -> str:
        return str(self.id)
