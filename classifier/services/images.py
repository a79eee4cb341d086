"""Pictures: adding them to a case, queueing them again, voiding one."""

from contextlib import suppress
from typing import Any
from uuid import UUID

from django.core.files.base import ContentFile
from django.core.files.uploadedfile import UploadedFile
from django.db import DatabaseError, IntegrityError, models, transaction
from django.db.models import F
from django.db.models.functions import Least
from django.utils import timezone

from accounts import audit
from accounts.built_statements import BuiltInsert, BuiltSelect, Given
from accounts.models import User
from accounts.roles import Verb
from classifier import thumbnails
from classifier.errors import Conflict, InvalidTransition, Unavailable
from classifier.kept_totals import forget_images
from classifier.models import Batch, Case, CellImage, ImageStatus, ModelVersion, Priority, Void
from classifier.querysets import CellImageQuerySet
from classifier.retention import require_kept
from classifier.services.cases import open_quick_case
from classifier.services.permission import held_open, require, require_editable, required_reason
from classifier.services.room import require_room
from classifier.storage import delete_on_commit
from classifier.transitions import move
from classifier.uploads import AcceptedUpload, accept_upload, shown_name
from classifier.wakeup import wake_workers

IMAGES = BuiltInsert(CellImage)
SAME_PICTURE = BuiltSelect(
    CellImage.objects.filter(
        case=Given("case", models.UUIDField()), pixels_sha256=Given("pixels", models.CharField()), cancelled=False
    )
    .order_by()
    .values_list("pk")
)
# Failures whose sentence asks for the same picture again.
MENDED_BY_UPLOAD = ("stored_file_missing", "stored_file_altered", "unreadable_image")


def add_image(
    *, actor: User, case: Case, upload: UploadedFile, priority: Priority = Priority.INTERACTIVE
) -> tuple[CellImage, bool]:
    """Accept a picture into a case and queue it. Returns the image and whether it is new to the case.

    The same picture again (same pixels, whatever the file) is the same image. Raises NotAllowed, UploadRejected,
    QueueFull.
    """
    require(actor, Verb.UPLOAD, case)
    require_room(actor)
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
    *,
    actor: User,
    case: Case,
    accepted: AcceptedUpload,
    name: str,
    priority: Priority,
    batch: Batch | None = None,
    turn: int = 0,
) -> tuple[CellImage, bool]:
    """The image of an accepted picture in the case, stored and queued unless it is there already.

    An image of a batch waits for its `turn`, and is on hold unless the batch runs. What a cancelled batch voided may
    come again, as a new image.
    """
    require_editable(case)
    pixels = accepted.pixels_sha256
    if SAME_PICTURE.any(case=case.pk, pixels=pixels) and (
        known := same_picture(case, pixels).select_related("void", "removed_picture").first()
    ):
        if known.is_void:
            message = "This picture was voided in this case. If that was a mistake, upload it to a case of its own."
            raise Conflict("image_void", message)
        if known.failure_code in MENDED_BY_UPLOAD and not hasattr(known, "removed_picture"):
            restore_image(actor=actor, image=known, accepted=accepted)
        take_over(actor=actor, image=known, priority=priority, batch=batch, turn=turn)
        if not known.cancelled:
            return known, False
    try:
        return store_image(
            actor=actor, case=case, accepted=accepted, name=name, priority=priority, batch=batch, turn=turn
        ), True
    except IntegrityError as error:
        # The same picture arrived twice at the same moment; the other one was first, or is cancelled again by now.
        if twin := same_picture(case, pixels).first():
            return twin, False
        raise Unavailable("busy", "This picture was being taken out at the same moment. Send it again.") from error


def same_picture(case: Case, pixels_sha256: str) -> CellImageQuerySet:
    return CellImage.objects.filter(case=case, pixels_sha256=pixels_sha256, cancelled=False)


def take_over(*, actor: User, image: CellImage, priority: Priority, batch: Batch | None, turn: int) -> None:
    """Let an image that waits in another's batch wait for who hands it in now, whatever becomes of that batch."""
    if image.batch_id is None or not image.is_waiting or (batch is not None and image.batch_id == batch.pk):
        return
    changes: dict[str, Any] = {"batch": batch, "turn": turn, "priority": Least(F("priority"), int(priority))}
    if runs := not held_back(batch):
        changes["on_hold"] = False
    # One statement: nothing is taken from a batch that is cancelled at this moment.
    theirs = CellImage.objects.waiting().filter(pk=image.pk, batch=image.batch_id, cancelled=False)
    with transaction.atomic():
        if theirs.update(**changes):
            audit.record(action="image_taken_over", actor=actor, target=image, from_batch=str(image.batch_id))
            if runs:
                wake_workers()
    image.refresh_from_db()


def held_back(batch: Batch | None) -> bool:
    """Whether what comes with the batch is on hold: it is not started yet, or paused."""
    return batch is not None and (batch.started_at is None or batch.paused_at is not None)


def restore_image(*, actor: User, image: CellImage, accepted: AcceptedUpload) -> None:
    """Give a failed image its picture back and queue it again: what its failure asked the sender for.

    The new file has a name of its own while the old one is there; its thumbnail is then drawn anew, under that name.
    """
    lost, lost_thumbnails = str(image.file.name), thumbnails.paths_of(image)
    image.file.save(f"original.{accepted.extension}", ContentFile(accepted.content), save=False)
    left = {lost, *lost_thumbnails} - {str(image.file.name), *thumbnails.paths_of(image)}
    changes = {"has_thumbnail": False} if left.issuperset(lost_thumbnails) else {}
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
            **changes,
            **fresh_try(),
        )
        if moved:
            audit.record(action="image_restored", actor=actor, target=image)
            transaction.on_commit(forget_images)
            wake_workers()
            for name in left:
                delete_on_commit(image.file.storage, name)
    # A file that was gone is stored again under its own name, which the row may still have.
    if not moved and image.file.name != lost:
        image.file.storage.delete(str(image.file.name))
    image.refresh_from_db()


def fresh_try() -> dict[str, Any]:
    """The queue's fields of an image that is queued as if for the first time."""
    return {"queued_at": timezone.now(), "attempts": 0, "faults": 0, "classified_at": None, "on_hold": False}


def store_image(
    *,
    actor: User,
    case: Case,
    accepted: AcceptedUpload,
    name: str,
    priority: Priority,
    batch: Batch | None = None,
    turn: int = 0,
) -> CellImage:
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
        batch=batch,
        turn=turn,
        on_hold=held_back(batch),
    )
    image.file.save(f"original.{accepted.extension}", ContentFile(accepted.content), save=False)
    try:
        with transaction.atomic():
            require_editable(held_open(case))
            IMAGES.insert(image)
            audit.record(action="image_uploaded", actor=actor, target=image, case=str(case.pk))
            if not image.on_hold:
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

    Raises NotAllowed, InvalidTransition (nothing_to_requeue), Conflict (image_void, case_released, case_void), Gone
    (picture_removed).
    """
    require(actor, Verb.UPLOAD, image.case)
    require_editable(image.case)
    require_kept(image)
    if image.is_void:
        raise Conflict("image_void", "This image is void: it counts nowhere, so it is not classified again.")
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


@transaction.atomic
def void_image(*, actor: User, image: CellImage, reason: str) -> Void:
    """Take an image out of everything that counts; it and its reviews stay readable.

    Raises NotAllowed, InvalidInput (reason_missing), Conflict (already_void, case_released, case_void).
    """
    require(actor, Verb.RELEASE, image.case)
    case = Case.objects.select_for_update(no_key=True).get(pk=image.case_id)
    require_editable(case)
    reason = required_reason(reason)
    if Void.objects.filter(image=image).exists():
        raise Conflict("already_void", "This image is void already.")
    void = Void.objects.create(image=image, reason=reason, by=actor)
    audit.record(action="image_voided", actor=actor, target=image, case=str(case.pk))
    return void
