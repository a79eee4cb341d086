"""What people can do. Every door (page, API, admin, command) calls these; nothing else changes a case or an image."""

import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.uploadedfile import UploadedFile
from django.db import DatabaseError, IntegrityError, transaction
from django.utils import timezone

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier.errors import Conflict, InvalidInput, InvalidTransition, NotAllowed
from classifier.models import Case, CaseStatus, CellImage, ImageStatus, ModelVersion, Priority
from classifier.transitions import move
from classifier.uploads import AcceptedUpload, accept_upload, shown_name
from classifier.wakeup import wake_workers

TAKES_IMAGES = {CaseStatus.OPEN, CaseStatus.IN_REVIEW}
# Failures whose sentence asks for the same picture again.
MENDED_BY_UPLOAD = ("stored_file_missing", "stored_file_altered", "unreadable_image")
EARLIEST_COLLECTION = datetime(1900, 1, 1, tzinfo=UTC)
# Without the letters and digits that people mistake for each other.
CLEAR_CHARACTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"


def require(actor: User, verb: Verb, case: Case | None = None) -> None:
    """Raises NotAllowed unless the actor's role has the verb and the case, if any, is the own laboratory's."""
    if not actor.may(verb) or (case is not None and case.laboratory_id != actor.laboratory_id):
        role = actor.get_role_display().lower() if actor.role else "platform operator"
        raise NotAllowed("not_allowed", f"A {role} can't {verb} here. Ask your laboratory's administrator.")


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


def add_image(
    *, actor: User, case: Case, upload: UploadedFile, priority: Priority = Priority.INTERACTIVE
) -> tuple[CellImage, bool]:
    """Accept a picture into a case and queue it. Returns the image and whether it is new to the case.

    The same picture again (same pixels, whatever the file) is the same image. Raises NotAllowed, UploadRejected.
    """
    require(actor, Verb.UPLOAD, case)
    return keep_picture(
        actor=actor, case=case, accepted=accept_upload(upload), name=shown_name(upload.name), priority=priority
    )


def add_image_to_quick_case(*, actor: User, case_id: UUID, upload: UploadedFile) -> tuple[CellImage, bool]:
    """Like `add_image`, but the case is opened on the way, and only for a picture that is accepted."""
    require(actor, Verb.UPLOAD)
    accepted = accept_upload(upload)
    case = open_quick_case(actor=actor, case_id=case_id)
    return keep_picture(
        actor=actor, case=case, accepted=accepted, name=shown_name(upload.name), priority=Priority.INTERACTIVE
    )


def keep_picture(
    *, actor: User, case: Case, accepted: AcceptedUpload, name: str, priority: Priority
) -> tuple[CellImage, bool]:
    """The image of an accepted picture in the case, stored and queued unless it is there already."""
    if case.status not in TAKES_IMAGES:
        message = "The report of this case is released, so it takes no more images. Amend or correct the case first."
        raise Conflict("case_released", message)
    same_picture = CellImage.objects.filter(case=case, pixels_sha256=accepted.pixels_sha256)
    if known := same_picture.first():
        if known.failure_code in MENDED_BY_UPLOAD:
            restore_image(actor=actor, image=known, accepted=accepted)
        return known, False
    try:
        return store_image(actor=actor, case=case, accepted=accepted, name=name, priority=priority), True
    except IntegrityError:
        # The same picture arrived twice at the same moment; the other one was first.
        return same_picture.get(), False


def restore_image(*, actor: User, image: CellImage, accepted: AcceptedUpload) -> None:
    """Give a failed image its picture back and queue it again: what its failure asked the sender for."""
    lost = image.file.name
    image.file.save(f"original.{accepted.extension}", ContentFile(accepted.content), save=False)
    with transaction.atomic():
        moved = move(
            CellImage.objects.filter(pk=image.pk, failure_code__in=MENDED_BY_UPLOAD),
            source=ImageStatus.FAILED,
            target=ImageStatus.QUEUED,
            file=image.file.name,
            received_sha256=accepted.received_sha256,
            stored_sha256=accepted.stored_sha256,
            stored_bytes=len(accepted.content),
            failure_code="",
            **fresh_try(),
        )
        if moved:
            audit.record(action="image_restored", actor=actor, target=image)
            wake_workers()
    # A file that was gone is stored again under its own name: then there is nothing to clear away.
    if lost != image.file.name:
        image.file.storage.delete(str(lost if moved else image.file.name))
    image.refresh_from_db()


def fresh_try() -> dict[str, Any]:
    """The queue's fields of an image that is queued as if for the first time."""
    return {"queued_at": timezone.now(), "attempts": 0, "faults": 0, "classified_at": None}


def store_image(*, actor: User, case: Case, accepted: AcceptedUpload, name: str, priority: Priority) -> CellImage:
    """Write the file, then the row. A row that can't be written leaves no file behind."""
    image = CellImage(
        case=case,
        original_name=name,
        received_sha256=accepted.received_sha256,
        stored_sha256=accepted.stored_sha256,
        pixels_sha256=accepted.pixels_sha256,
        stored_bytes=len(accepted.content),
        width=accepted.width,
        height=accepted.height,
        uploaded_by=actor,
        priority=priority,
        queued_at=timezone.now(),
    )
    image.file.save(f"original.{accepted.extension}", ContentFile(accepted.content), save=False)
    try:
        with transaction.atomic():
            image.save(force_insert=True)
            audit.record(action="image_uploaded", actor=actor, target=image, case=str(case.pk))
            wake_workers()
    except BaseException:
        discard_file_without_row(image)
        raise
    return image


def discard_file_without_row(image: CellImage) -> None:
    """Remove the file of a row that was not written. In doubt it stays: a file too many harms nobody."""
    with suppress(DatabaseError):
        if not CellImage.objects.filter(pk=image.pk).exists():
            image.file.storage.delete(str(image.file.name))


def requeue_image(*, actor: User, image: CellImage) -> CellImage:
    """Queue an image again: a failed one, or a classified one that the active model has not seen.

    Raises NotAllowed, InvalidTransition (nothing_to_requeue).
    """
    require(actor, Verb.UPLOAD, image.case)
    rows = CellImage.objects.filter(pk=image.pk)
    unseen = rows.exclude(predictions__model_version__active=True)
    with transaction.atomic():
        moved = move(rows, source=ImageStatus.FAILED, target=ImageStatus.QUEUED, failure_code="", **fresh_try())
        if not moved and ModelVersion.objects.filter(active=True).exists():
            moved = move(unseen, source=ImageStatus.CLASSIFIED, target=ImageStatus.QUEUED, **fresh_try())
        if not moved:
            message = "Only a failed image, or one that the active model has not classified yet, can be queued again."
            raise InvalidTransition("nothing_to_requeue", message)
        audit.record(action="image_requeued", actor=actor, target=image)
        wake_workers()
    image.refresh_from_db()
    return image
