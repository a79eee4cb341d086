"""Reads of emergency access: what is open to somebody now, and who opened cases of a laboratory."""

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from accounts.models import User
from accounts.roles import Verb
from classifier.models import Case, EmergencyAccess
from classifier.querysets import visible_to


def open_accesses(user: User) -> QuerySet[EmergencyAccess]:
    """What the user has opened and may still read, the newest first."""
    if not user.may(Verb.EMERGENCY):
        return EmergencyAccess.objects.none()
    return EmergencyAccess.objects.filter(user=user, expires_at__gt=Now(), end=None)


def open_cases(user: User) -> list[EmergencyAccess]:
    """What the user may read now, each case once, with the access that lasts longest; one query."""
    latest = open_accesses(user).select_related("case__laboratory").order_by("expires_at", "id")
    return list({access.case_id: access for access in latest}.values())


def access_to(user: User, case: Case) -> EmergencyAccess | None:
    """The access by which the user reads the case now, the one that lasts longest; one query."""
    found = open_accesses(user).filter(case=case).select_related("case__laboratory")
    return found.order_by("-expires_at", "-id").first()


def accesses_to_end(user: User) -> QuerySet[EmergencyAccess]:
    """Accesses that the user may end, open or not: the own ones, and for administrators those to their laboratory."""
    found = EmergencyAccess.objects.select_related("case__laboratory", "user__laboratory")
    if user.laboratory_id is not None and user.may(Verb.ADMINISTER):
        return found.filter(Q(user=user) | visible_to(user, "case__laboratory"))
    return found.filter(user=user)


def may_see_accesses(user: User) -> bool:
    """Whether the user is told of accesses to cases of the own laboratory: its auditors and administrators."""
    return user.laboratory_id is not None and (user.may(Verb.AUDIT) or user.may(Verb.ADMINISTER))


def accesses_to_laboratory(user: User) -> QuerySet[EmergencyAccess]:
    """Accesses to cases of the user's laboratory, the newest first, for those who are told of them."""
    if not may_see_accesses(user):
        return EmergencyAccess.objects.none()
    found = EmergencyAccess.objects.filter(visible_to(user, "case__laboratory"))
    return found.select_related("case", "user__laboratory", "end__by")


def accesses_by_laboratory(user: User) -> QuerySet[EmergencyAccess]:
    """Accesses of people of the user's laboratory to cases of others, for those who are told of them.

    They hold nothing of the case: it is another laboratory's.
    """
    if not may_see_accesses(user):
        return EmergencyAccess.objects.none()
    found = EmergencyAccess.objects.filter(visible_to(user, "user__laboratory"))
    return found.select_related("case__laboratory", "user", "end")
