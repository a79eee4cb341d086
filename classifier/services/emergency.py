"""Break-glass: opening one case of another laboratory for an hour, for reading, and telling everybody concerned."""

from datetime import timedelta
from typing import Any

from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from accounts import audit
from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import Role, Verb
from classifier import emergency_mails
from classifier.errors import Conflict, InvalidInput, NotAllowed, TooManyTries
from classifier.models import Case, EmergencyAccess, EmergencyEnd, NotificationKind
from classifier.services.notifications import notify
from classifier.services.permission import may_in, require, required_reason, storable
from classifier.services.reports import check_password

ACCESS_LASTS = timedelta(hours=1)
REFUSED = "emergency_access_refused"
# Guesses at a laboratory or a number; who mistypes has some left, who searches has not.
TRIES = 5
TRIES_WINDOW = timedelta(minutes=15)
NO_SUCH_CASE = (
    "There is no case of that laboratory and accession number. Both must be typed exactly. This try is recorded."
)


def open_emergency_access(
    *, actor: User, laboratory: str, accession_number: str, reason: str, password: str
) -> EmergencyAccess:
    """Open one case of another laboratory to `actor` for an hour. It can be read, and nothing in it changes.

    `laboratory` is its exact name. Whichever of name and number is wrong, the answer is the same. Every try is in the
    trail of the actor's laboratory, and in that of the other one where it was named rightly; what was typed is not.
    Raises NotAllowed (not_allowed, wrong_password); TooManyTries (too_many_tries); InvalidInput (reason_missing,
    reason_too_long, unstorable_text, own_laboratory, no_such_case).
    """
    require(actor, Verb.EMERGENCY)
    reason = required_reason(reason)
    laboratory, accession_number = storable(laboratory), storable(accession_number)
    require_tries_left(actor)
    check_password(actor=actor, password=password, nothing="Nothing was opened")
    if actor.laboratory is not None and laboratory.lower() == actor.laboratory.name.lower():
        raise InvalidInput("own_laboratory", "That is your own laboratory: its cases are in your worklist.")
    case = found_case(actor, laboratory, accession_number)
    with transaction.atomic():
        access = EmergencyAccess(case=case, user=actor, reason=reason, expires_at=timezone.now() + ACCESS_LASTS)
        access.save(force_insert=True)
        record_in_both(
            action="emergency_access_opened",
            actor=actor,
            other=case.laboratory,
            target=case,
            case=str(case.pk),
            emergency=str(access.pk),
        )
        told = people_to_tell(case.laboratory)
        for person in told:
            notify(user=person, kind=NotificationKind.EMERGENCY_ACCESS, case=case)
        emergency_mails.write(access, told)
    return access


@transaction.atomic
def end_emergency_access(*, actor: User, access: EmergencyAccess) -> None:
    """Close the case to who has opened it, before the hour is over. From the commit on nothing of it is found.

    For whoever opened it, and for the administrators of the case's laboratory. Every open access of that person to the
    case ends. Asked once more, nothing changes. Raises NotAllowed; Conflict (access_over) where the hour is over.
    """
    if actor != access.user and not may_in(access.case, actor, Verb.ADMINISTER):
        raise NotAllowed(
            "not_allowed", "Only who opened the case, or an administrator of its laboratory, can end this."
        )
    still_open = EmergencyAccess.objects.filter(user=access.user, case=access.case, expires_at__gt=Now(), end=None)
    for each in still_open:
        _, is_new = EmergencyEnd.objects.get_or_create(access=each, defaults={"by": actor})
        if is_new:
            record_in_both(
                action="emergency_access_ended",
                actor=actor,
                other=access.case.laboratory if actor == access.user else access.user.laboratory,
                target=access.case,
                case=str(access.case_id),
                emergency=str(each.pk),
            )
    if not EmergencyEnd.objects.filter(access=access).exists():
        raise Conflict("access_over", "This access has ended by itself: its hour is over.")


def require_tries_left(actor: User) -> None:
    """Raises TooManyTries where the actor has named no case too often lately."""
    since = timezone.now() - TRIES_WINDOW
    tries = AuditEvent.objects.filter(actor=actor, laboratory=actor.laboratory, action=REFUSED, at__gt=since)
    if tries.count() >= TRIES:
        message = "No such case was found too often. Wait fifteen minutes, or call the other laboratory."
        raise TooManyTries("too_many_tries", message)


def found_case(actor: User, laboratory: str, accession_number: str) -> Case:
    """The case of that laboratory and number. Raises InvalidInput (no_such_case) and records the try.

    Tries at the same moment are counted one by one: each takes the actor's row, which locks nobody else.
    """
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=actor.pk)
        require_tries_left(actor)
        named = Laboratory.objects.filter(name__iexact=laboratory).first()
        cases = Case.objects.select_related("laboratory").filter(laboratory=named)
        case = cases.numbered(accession_number).first() if named else None
        if case is None:
            record_in_both(action=REFUSED, actor=actor, other=named, code="no_such_case")
    if case is None:
        raise InvalidInput("no_such_case", NO_SUCH_CASE)
    return case


def record_in_both(
    *, action: str, actor: User, other: Laboratory | None, target: models.Model | None = None, **facts: Any
) -> None:
    """One event in the trail of the actor's laboratory, and one in that of the other laboratory."""
    audit.record(action=action, actor=actor, target=target, **facts)
    if other is not None:
        audit.record(action=action, actor=actor, target=target, laboratory=other, **facts)


def record_emergency_view(*, actor: User, access: EmergencyAccess, target: models.Model, page: str) -> None:
    """Tell the trail of the case's laboratory what was looked at; the actor's own has the ordinary event."""
    audit.record(
        action="emergency_viewed",
        actor=actor,
        target=target,
        laboratory=access.case.laboratory,
        emergency=str(access.pk),
        page=page,
    )


def people_to_tell(laboratory: Laboratory) -> list[User]:
    """The laboratory's administrators and auditors."""
    responsible = Q(role__in=[Role.ADMIN, Role.AUDITOR])
    return list(User.objects.filter(responsible, laboratory=laboratory, is_active=True).order_by("email"))
