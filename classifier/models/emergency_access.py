"""Break-glass: one case of another laboratory, for an hour, with a reason, seen by everybody concerned."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

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
