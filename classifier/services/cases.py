"""Opening, changing, assigning and voiding a case."""

import secrets
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypedDict, Unpack
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier.case_transitions import move_case
from classifier.errors import Conflict, InvalidInput
from classifier.models import Case, CaseStatus, NotificationKind, Void
from classifier.services.notifications import notify
from classifier.services.permission import require, require_editable, required_reason

EARLIEST_COLLECTION = datetime(1900, 1, 1, tzinfo=UTC)
# Without the letters and digits that people mistake for each other.
CLEAR_CHARACTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"


class CaseFields(TypedDict, total=False):
    """What can be changed in a case; the WBC is in 10^9/L."""

    patient_pseudonym: str
    specimen: str
    collected_at: datetime | None
    wbc_value: Decimal | None
    wbc_source: str


def open_case(
    *,
    actor: User,
    accession_number: str = "",
    patient_pseudonym: str = "",
    specimen: str = "",
    collected_at: datetime | None = None,
    wbc_value: Decimal | None = None,
    wbc_source: str = "",
    case_id: UUID | None = None,
) -> Case:
    """Open a case of the actor's laboratory; without an accession number one is generated.

    Raises NotAllowed, InvalidInput (wbc_source_missing, collected_at_implausible), Conflict (accession_number_taken,
    case_id_taken).
    """
    require(actor, Verb.UPLOAD)
    case = Case(
        laboratory=actor.laboratory,
        accession_number=accession_number.strip() or generated_accession_number(),
        patient_pseudonym=patient_pseudonym.strip(),
        specimen=specimen.strip(),
        collected_at=collected_at,
        wbc_value=wbc_value,
        wbc_source=wbc_source.strip(),
        opened_by=actor,
    )
    if case_id:
        case.id = case_id
    require_plausible(case)
    try:
        with transaction.atomic():
            case.save(force_insert=True)
            audit.record(action="case_opened", actor=actor, target=case)
    except IntegrityError as error:
        if Case.objects.filter(laboratory=actor.laboratory).numbered(case.accession_number).exists():
            message = "This laboratory already has a case with that accession number. Open that case instead."
            raise Conflict("accession_number_taken", message) from error
        raise Conflict("case_id_taken", "This case could not be opened. Reload the page and try again.") from error
    return case


def require_plausible(case: Case) -> None:
    """Raises InvalidInput (collected_at_implausible, wbc_source_missing)."""
    latest = timezone.now() + timedelta(days=1)
    if case.collected_at is not None and not EARLIEST_COLLECTION <= case.collected_at <= latest:
        raise InvalidInput("collected_at_implausible", "The time of collection lies in the future or before 1900.")
    if case.wbc_value is not None and not case.wbc_source:
        raise InvalidInput("wbc_source_missing", "Say where the WBC value comes from, for example the analyser's name.")


def generated_accession_number() -> str:
    tail = "".join(secrets.choice(CLEAR_CHARACTERS) for _ in range(6))
    return f"Q{timezone.now():%y%m%d}-{tail}"


def open_quick_case(*, actor: User, case_id: UUID) -> Case:
    """The case behind one drop on the bench: the first picture of the drop opens it, the others find it."""
    require(actor, Verb.UPLOAD)
    mine = Case.objects.visible_to(actor).filter(pk=case_id)
    if case := mine.first():
        return case
    try:
        return open_case(actor=actor, case_id=case_id)
    except Conflict:
        # Two pictures of one drop arrived together; or the id is another laboratory's, which nobody needs to learn.
        return mine.first() or open_case(actor=actor)


def locked(case: Case) -> Case:
    """The case as it is now, held until the transaction ends."""
    return Case.objects.select_for_update(no_key=True).get(pk=case.pk)


@transaction.atomic
def change_case(*, actor: User, case: Case, **fields: Unpack[CaseFields]) -> Case:
    """Change what is known of the specimen; what is not given stays, also what somebody else has just changed.

    The audit trail keeps the names of the changed fields, never their values: they are patient data.
    Raises NotAllowed, InvalidInput (collected_at_implausible, wbc_source_missing), Conflict (case_released, case_void).
    """
    require(actor, Verb.UPLOAD, case)
    case = locked(case)
    require_editable(case)
    changed = []
    for name, given in fields.items():
        value = given.strip() if isinstance(given, str) else given
        if value != getattr(case, name):
            setattr(case, name, value)
            changed.append(name)
    if changed:
        require_plausible(case)
        case.save(update_fields=changed)
        audit.record(action="case_changed", actor=actor, target=case, fields=sorted(changed))
    return case


@transaction.atomic
def assign_case(*, actor: User, case: Case, reader: User | None) -> Case:
    """Give the case to somebody who reviews, or (None) to nobody. Whoever gets it from somebody else is notified.

    Raises NotAllowed, InvalidInput (not_assignable), Conflict (case_void).
    """
    require(actor, Verb.UPLOAD, case)
    case = locked(case)
    if case.status == CaseStatus.VOID:
        raise Conflict("case_void", "This case is void: there is nothing left to do in it.")
    if reader and not (reader.laboratory_id == case.laboratory_id and reader.may(Verb.REVIEW)):
        message = "A case can only be assigned to an active technologist or reader of its laboratory."
        raise InvalidInput("not_assignable", message)
    if case.assigned_to_id != (reader.pk if reader else None):
        case.assigned_to = reader
        case.save(update_fields=["assigned_to"])
        audit.record(action="case_assigned", actor=actor, target=case, reader=str(reader.pk) if reader else None)
        if reader:
            notify(user=reader, kind=NotificationKind.CASE_ASSIGNED, case=case, actor=actor)
    return case


@transaction.atomic
def void_case(*, actor: User, case: Case, reason: str) -> Void:
    """Take a case, entered in error, out of everything that counts; it and its reports stay readable, marked.

    Raises NotAllowed, InvalidInput (reason_missing, reason_too_long), Conflict (already_void).
    """
    require(actor, Verb.RELEASE, case)
    case = locked(case)
    if case.status == CaseStatus.VOID:
        raise Conflict("already_void", "This case is void already.")
    void = Void.objects.create(case=case, reason=required_reason(reason), by=actor)
    move_case(case, CaseStatus.VOID)
    audit.record(action="case_voided", actor=actor, target=case)
    return void
