"""Opening, assigning and voiding a case."""

import secrets
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier.errors import Conflict, InvalidInput
from classifier.models import Case
from classifier.services.permission import require

EARLIEST_COLLECTION = datetime(1900, 1, 1, tzinfo=UTC)
# Without the letters and digits that people mistake for each other.
CLEAR_CHARACTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"


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
    if collected_at is not None and not EARLIEST_COLLECTION <= collected_at <= timezone.now() + timedelta(days=1):
        raise InvalidInput("collected_at_implausible", "The time of collection lies in the future or before 1900.")
    if wbc_value is not None and not wbc_source.strip():
        raise InvalidInput("wbc_source_missing", "Say where the WBC value comes from, for example the analyser's name.")
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
    try:
        with transaction.atomic():
            case.save(force_insert=True)
            audit.record(action="case_opened", actor=actor, target=case)
    except IntegrityError as error:
        if Case.objects.filter(laboratory=actor.laboratory, accession_number__iexact=case.accession_number).exists():
            message = "This laboratory already has a case with that accession number. Open that case instead."
            raise Conflict("accession_number_taken", message) from error
        raise Conflict("case_id_taken", "This case could not be opened. Reload the page and try again.") from error
    return case


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
