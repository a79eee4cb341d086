"""Emergency accesses as the tests open them: as a row, or through the service."""

from datetime import timedelta

from django.utils import timezone

from accounts.models import User
from classifier import services
from classifier.models import Case, EmergencyAccess
from tests.conftest import PASSWORD

REASON = "Bleeding in theatre; the day lab of this patient is closed"


def opened(user: User, case: Case, *, minutes: float = 60) -> EmergencyAccess:
    access = EmergencyAccess(
        case=case, user=user, reason=REASON, expires_at=timezone.now() + timedelta(minutes=minutes)
    )
    access.save()
    return access


def asked(user: User, **fields: str) -> EmergencyAccess:
    usual = {"laboratory": "Northside", "accession_number": "A-1001", "reason": REASON, "password": PASSWORD}
    return services.open_emergency_access(actor=user, **{**usual, **fields})
