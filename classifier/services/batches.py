"""Batches: handing in many pictures at once, and starting, pausing, resuming, cancelling and retrying them."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from uuid import uuid4

from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile, UploadedFile
from django.db import transaction
from django.db.models import Exists, F, Min, OuterRef, Subquery
from django.db.models.functions import Now
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier import archives
from classifier.errors import Conflict, HematoVisionError, InvalidInput, Unavailable, UploadRejected, UploadTooLarge
from classifier.models import (
    SAME_PICTURE,
    Batch,
    BatchMember,
    BatchState,
    Case,
    CellImage,
    ImageStatus,
    Prediction,
    Priority,
    RemovedPicture,
    Void,
)
from classifier.querysets import CellImageQuerySet
from classifier.services.cases import open_case
from classifier.services.images import fresh_try, keep_picture
from classifier.services.permission import require, require_editable
from classifier.services.room import require_room
from classifier.transitions import move
from classifier.uploads import accept_upload, shown_name
from classifier.wakeup import wake_workers

CANCELLED_REASON = "batch cancelled"


class ClaimLost(Exception):
    """Somebody else checks this batch now, or it was cancelled: what was about to be written is not."""


def submit_archive(
    *, actor: User, archive: UploadedFile | None, accession_number: str = "", asks_before_start: bool = False
) -> Batch:
    """Take an archive of pictures for one case; the workers check it file by file.

    Without an accession number the case gets one; a case of that number that is there already takes the pictures.
    Raises NotAllowed; UploadRejected (no_archive, not_an_archive, encrypted_archive, archive_too_large,
    too_many_members, directory_too_large, archive_unpacks_too_large, archive_ratio); InvalidInput
    (accession_number_too_long); Conflict (case_released, case_void); QueueFull.
    """
    require(actor, Verb.UPLOAD)
    require_room(actor)
    if archive is None or archive.file is None:
        raise UploadRejected("no_archive", "Send a ZIP archive of pictures as multipart/form-data in `archive`.")
    size = archive.size or 0
    if size > settings.MAX_ARCHIVE_BYTES:
        limit = filesizeformat(settings.MAX_ARCHIVE_BYTES)
        message = f"The archive has {filesizeformat(size)}; at most {limit} are accepted. Split it."
        raise UploadTooLarge("archive_too_large", message)
    with archives.opened(archive.file):
        pass  # what is wrong with the archive as a whole is said at once
    archive.file.seek(0)
    batch = Batch(laboratory=actor.laboratory, archive_bytes=size, asks_before_start=asks_before_start)
    with ExitStack() as undo:
        batch.archive.save("archive.zip", archive, save=False)
        # Without its row the file must not stay.
        undo.callback(batch.archive.storage.delete, str(batch.archive.name))
        with transaction.atomic():
            save_submitted(actor, batch, accession_number)
            wake_workers()
        undo.pop_all()
    return batch


@transaction.atomic
def open_folder_batch(*, actor: User, accession_number: str, files: int) -> Batch:
    """A batch to which its `files` pictures are added one by one; each is classified as soon as it is there.

    Raises NotAllowed, InvalidInput (accession_number_too_long), Conflict (case_released, case_void).
    """
    require(actor, Verb.UPLOAD)
    batch = Batch(
        members_total=files,
        started_at=timezone.now(),
        first_turn=least_waiting_turn(),
        claim_token=uuid4(),
        claim_expires_at=timezone.now() + timedelta(seconds=settings.CLAIM_SECONDS),
    )
    save_submitted(actor, batch, accession_number)
    return batch


def save_submitted(actor: User, batch: Batch, accession_number: str) -> None:
    """Write the batch, with the case that it is for."""
    case = case_for(actor, accession_number.strip())
    batch.laboratory, batch.case, batch.submitted_by = case.laboratory, case, actor
    batch.save(force_insert=True)
    audit.record(action="batch_submitted", actor=actor, target=batch, case=str(case.pk))


def case_for(actor: User, accession_number: str) -> Case:
    """The laboratory's case of that number, or a new one."""
    if len(accession_number) > 64:
        raise InvalidInput("accession_number_too_long", "An accession number has at most 64 characters.")
    known = Case.objects.visible_to(actor).numbered(accession_number)
    case = (known.first() if accession_number else None) or open_case(actor=actor, accession_number=accession_number)
    require_editable(case)
    return case


def add_to_batch(
    *, actor: User, batch: Batch, number: int, name: str, read: Callable[[], bytes], label: str = ""
) -> BatchMember:
    """Add the next file of a folder (number 0, 1, ...). A picture that is refused is noted with its reason.

    Raises NotAllowed, Conflict (batch_over) when the batch was cancelled or taken for abandoned.
    """
    require(actor, Verb.UPLOAD, batch.case)
    try:
        return keep_member(batch, number, name, read, label)
    except ClaimLost as error:
        raise batch_over() from error


@transaction.atomic
def close_folder_batch(*, actor: User, batch: Batch, labels: archives.Labels | None = None) -> None:
    """Say that no more files come. Raises NotAllowed."""
    require(actor, Verb.UPLOAD, batch.case)
    names = batch.members.values_list("name", flat=True)
    open_ones = Batch.objects.filter(pk=batch.pk, claim_token=batch.claim_token, checked_at=None, cancelled_at=None)
    if open_ones.update(checked_at=Now(), claim_token=None, claim_expires_at=None) and labels:
        note_complaints(batch, labels, list(names))
    # Where everything is classified already, the workers have nothing to do but to note the end.
    wake_workers()


def keep_member(batch: Batch, number: int, name: str, read: Callable[[], bytes], label: str = "") -> BatchMember:
    """Judge one file and write what came of it, in the transaction that moves the batch on: so exactly once.

    Raises ClaimLost where the batch's claim is no longer the one that `batch` bears; Unavailable.
    """
    accepted = None
    refusal: HematoVisionError | None = None
    try:
        accepted = accept_upload(SimpleUploadedFile(shown_name(name), read()))
    except Unavailable:
        raise
    except HematoVisionError as error:
        refusal = error
    member = BatchMember(batch=batch, number=number, name=archives.shown_path(name), label=label)
    with transaction.atomic():
        move_on(batch, number)
        # Read behind the row's lock: it may have been paused since.
        now = Batch.objects.select_for_update(no_key=True).get(pk=batch.pk)
        if accepted is not None:
            try:
                member.image, new = keep_picture(
                    actor=batch.submitted_by,
                    case=batch.case,
                    accepted=accepted,
                    name=shown_name(name),
                    priority=Priority.BATCH,
                    batch=now,
                    turn=now.first_turn + number,
                )
                taken_over = member.image.batch_id == batch.pk and not batch.members.filter(image=member.image).exists()
                member.code = "" if new or taken_over else SAME_PICTURE
            except Conflict as error:
                refusal = error
        if refusal is not None:
            member.code, member.message = refusal.code, refusal.message[:300]
        member.save()
    return member


def move_on(batch: Batch, number: int) -> None:
    """Note that the file of that number is done, as the one who holds the claim. Raises ClaimLost."""
    mine = Batch.objects.filter(
        pk=batch.pk, claim_token=batch.claim_token, members_checked=number, checked_at=None, cancelled_at=None
    )
    expires = Now() + timedelta(seconds=settings.CLAIM_SECONDS)
    if not mine.update(members_checked=number + 1, check_faults=0, claim_expires_at=expires):
        raise ClaimLost


def note_complaints(batch: Batch, labels: archives.Labels, names: list[str]) -> None:
    """What is wrong with labels.csv, as members behind the last file."""
    used = {archives.label_for(labels, name)[0] for name in names} if labels.by_name else set()
    without_file = sorted(set(labels.by_name) - used)
    complaints = [(f"{archives.LABELS_FILE}, line {line}", code, message) for line, code, message in labels.complaints]
    message = "labels.csv names this file, but it was not sent."
    complaints += [(archives.shown_path(name), "label_without_file", message) for name in without_file]
    first = batch.members_total or 0
    BatchMember.objects.bulk_create(
        (
            BatchMember(batch=batch, number=first + at, name=name, code=code, message=message)
            for at, (name, code, message) in enumerate(complaints)
        ),
        batch_size=500,
    )


def least_waiting_turn() -> int:
    """Where a batch that starts now joins the line: beside the next image of whoever waits already."""
    waiting = CellImage.objects.claimable().order_by().filter(priority=Priority.BATCH)
    least: int | None = waiting.aggregate(least=Min("turn"))["least"]
    return least or 0


def let_go(batch: Batch) -> None:
    """Let the images that were on hold wait for the workers, in line with those of other batches."""
    take_from_those_that_rest(batch)
    held = waiting_images(batch).filter(on_hold=True)
    lock_in_order(held)
    own = held.aggregate(least=Min("turn"))["least"] or 0
    held.update(on_hold=False, turn=F("turn") + (least_waiting_turn() - own))
    wake_workers()


def take_from_those_that_rest(batch: Batch) -> None:
    """A picture that two batches brought waits only as long as neither of them runs: the one that starts has it."""
    own = BatchMember.objects.filter(batch=batch, image=OuterRef("pk")).order_by("number")
    resting = CellImage.objects.waiting().filter(
        ~Exists(Void.objects.filter(image=OuterRef("pk"))), Exists(own), on_hold=True, cancelled=False
    )
    resting = resting.exclude(batch=batch)
    lock_in_order(resting)
    resting.update(batch=batch, turn=Subquery(own.values("number")[:1]) + batch.first_turn)


def images_of(batch: Batch) -> CellImageQuerySet:
    """The images of the batch that are not void. Without a join: an UPDATE of them must see each row as it is now."""
    return CellImage.objects.filter(~Exists(Void.objects.filter(image=OuterRef("pk"))), batch=batch)


def waiting_images(batch: Batch) -> CellImageQuerySet:
    return images_of(batch).waiting()


def lock_in_order(images: CellImageQuerySet) -> None:
    """Lock the rows, always in one order: two who change many of them never wait for each other."""
    list(images.order_by("pk").select_for_update().values_list("pk", flat=True))


@transaction.atomic
def start_batch(*, actor: User, batch: Batch) -> Batch:
    """Start a checked batch that asked first. Raises NotAllowed, Conflict (not_waiting_for_start, case_released)."""
    batch = locked(actor, batch)
    if not batch.waits_for_start:
        raise Conflict("not_waiting_for_start", "Only a batch that is checked and was not started yet can be started.")
    require_editable(batch.case)
    begin(batch)
    audit.record(action="batch_started", actor=actor, target=batch)
    return batch


def begin(batch: Batch) -> None:
    """Start the batch; the caller holds its row."""
    batch.started_at = timezone.now()
    batch.save(update_fields=["started_at"])
    let_go(batch)


@transaction.atomic
def pause_batch(*, actor: User, batch: Batch) -> Batch:
    """Hold what is not classified yet. Raises NotAllowed, Conflict (not_running)."""
    batch = locked(actor, batch)
    if batch.state != BatchState.RUNNING:
        raise Conflict("not_running", f"Only a running batch can be paused; this one is {batch.state.label.lower()}.")
    batch.paused_at = timezone.now()
    batch.save(update_fields=["paused_at"])
    # What a worker holds right now is classified; if it comes back instead, it waits like the rest.
    lock_in_order(waiting_images(batch))
    waiting_images(batch).update(on_hold=True)
    audit.record(action="batch_paused", actor=actor, target=batch)
    return batch


@transaction.atomic
def resume_batch(*, actor: User, batch: Batch) -> Batch:
    """Go on with a paused batch. Raises NotAllowed, Conflict (not_paused, case_released, case_void)."""
    batch = locked(actor, batch)
    if batch.state != BatchState.PAUSED:
        raise Conflict("not_paused", f"Only a paused batch can be resumed; this one is {batch.state.label.lower()}.")
    require_editable(batch.case)
    batch.paused_at = None
    batch.save(update_fields=["paused_at"])
    let_go(batch)
    audit.record(action="batch_resumed", actor=actor, target=batch)
    return batch


@transaction.atomic
def cancel_batch(*, actor: User, batch: Batch) -> Batch:
    """Give the batch up: what is classified stays, what waits is void. Raises NotAllowed, Conflict (batch_over)."""
    batch = locked(actor, batch)
    if batch.state in (BatchState.FINISHED, BatchState.CANCELLED):
        raise batch_over()
    batch.cancelled_at, batch.claim_token, batch.claim_expires_at = timezone.now(), None, None
    batch.save(update_fields=["cancelled_at", "claim_token", "claim_expires_at"])
    lock_in_order(waiting_images(batch))
    waiting_images(batch).update(on_hold=True)
    voided = void_waiting(batch, by=actor)
    audit.record(action="batch_cancelled", actor=actor, target=batch, voided=voided)
    return batch


def void_waiting(batch: Batch, by: User) -> int:
    """Void what is queued in a cancelled batch; returns how many that were.

    What was classified before, or was handed in by another batch as well, is classified instead.
    """
    queued = waiting_images(batch).filter(status=ImageStatus.QUEUED, on_hold=True)
    lock_in_order(queued)
    other_batches = BatchMember.objects.filter(image=OuterRef("pk"), batch__cancelled_at=None)
    wanted = Exists(Prediction.objects.filter(image=OuterRef("pk"))) | Exists(other_batches)
    # Without its picture it could only fail.
    still_kept = ~Exists(RemovedPicture.objects.filter(image=OuterRef("pk")))
    if queued.filter(wanted, still_kept).update(on_hold=False):
        wake_workers()
    # What is wanted is on hold no longer.
    images = list(queued.only("laboratory"))
    queued.update(cancelled=True)
    Void.objects.bulk_create(Void(image=image, reason=CANCELLED_REASON, by=by) for image in images)
    return len(images)


@transaction.atomic
def retry_failed(*, actor: User, batch: Batch) -> Batch:
    """Queue the failed images of the batch again. Raises NotAllowed, Conflict (batch_over, nothing_to_retry ...)."""
    batch = locked(actor, batch)
    if batch.state in (BatchState.CANCELLED, BatchState.CHECKING):
        raise Conflict(
            "not_running", f"This batch is {batch.state.label.lower()}, so nothing of it can be tried again."
        )
    require_editable(batch.case)
    failed = images_of(batch)
    lock_in_order(failed.filter(status=ImageStatus.FAILED))
    first = failed.filter(status=ImageStatus.FAILED).aggregate(least=Min("turn"))["least"] or 0
    again = {**fresh_try(), "on_hold": batch.paused_at is not None, "turn": F("turn") + (least_waiting_turn() - first)}
    count = move(failed, source=ImageStatus.FAILED, target=ImageStatus.QUEUED, failure_code="", **again)
    if not count:
        raise Conflict("nothing_to_retry", "No image of this batch has failed, so there is nothing to try again.")
    batch.finished_at = None
    batch.save(update_fields=["finished_at"])
    audit.record(action="batch_failed_retried", actor=actor, target=batch, images=count)
    wake_workers()
    return batch


def record_batch_export(*, actor: User, batch: Batch, kind: str) -> None:
    """Note that the results (`results`) or the refusals (`refused`) left the system."""
    audit.record(action="batch_exported", actor=actor, target=batch, case=str(batch.case_id), kind=kind)


def locked(actor: User, batch: Batch) -> Batch:
    """The batch as it is now, held until the transaction ends. Raises NotAllowed."""
    require(actor, Verb.UPLOAD, batch.case)
    held: Batch = Batch.objects.select_for_update(no_key=True).get(pk=batch.pk)
    return held


def batch_over() -> Conflict:
    return Conflict("batch_over", "This batch is finished or cancelled already, so nothing of it can be changed.")
