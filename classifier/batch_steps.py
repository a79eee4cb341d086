"""The machine's side of batches: checking archives in small steps, and noting which batches are finished.

How far a check has come stands in the row, and each file is written in the transaction that moves the row on; so a
worker that is killed loses the file that it was reading, and the next one reads it again.
"""

import time
import zipfile
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone

from accounts import audit
from accounts.built_statements import BuiltSelect
from classifier import archives
from classifier.batches import progress_of
from classifier.claims import anybody_waits, anything_waits
from classifier.errors import HematoVisionError, StorageUnavailable, Unavailable, UploadRejected
from classifier.models import (
    Batch,
    BatchMember,
    CellImage,
    ImageStatus,
    NotificationKind,
    WebhookEvent,
)
from classifier.services.batches import ClaimLost, begin, keep_member, move_on, note_complaints, void_waiting
from classifier.services.notifications import notify
from classifier.services.permission import held_open
from classifier.storage import private_files
from classifier.wakeup import send_wake_up
from classifier.webhooks import API, announce

logger = structlog.get_logger(__name__)
# A picture that is uploaded meanwhile waits no longer than this, and the reading of one file.
SLICE_SECONDS = 1.0
MAX_FAULTS = 3
# Asked at every turn of a worker, and nearly always answered by no: then nothing else is asked.
ANY_OPEN = BuiltSelect(
    Batch.objects.filter(finished_at=None, cancelled_at=None, checked_at=None)
    .exclude(archive="")
    .order_by()
    .values_list("pk")[:1]
)
ARCHIVE_FAILED = (
    "Checking this archive failed again and again, so its other files are left out. Pack it again and send it."
)
CHECK_FAILED = "Reading this file stopped the worker three times, so it is left out. Save the picture again."


def check_archives(classified: int = 0) -> int:
    """Check the next archive for about a second; returns how many of its files were looked at.

    `classified` is how many images were classified right before: as long as that goes on, nothing is done while a
    picture that somebody waits for is queued. Without a usable model there is nothing to be in the way of.
    Whatever else ends a check leaves its claim to expire: then it counts once, and meanwhile other archives go on.
    """
    if not ANY_OPEN.any() or (classified and anybody_waits()):
        return 0
    batch = claim_check()
    if batch is None:
        return 0
    goes_on = True
    try:
        looked_at = check_and_release(batch)
    except StorageUnavailable:
        # No archive's fault, and of no use before a while: the sweep wakes somebody for it.
        looked_at, goes_on = 0, False
    finally:
        # One wake-up in, at most one out: where images go on being classified, theirs serves the next step as well.
        if goes_on and Batch.objects.unchecked().exists() and not (classified and anything_waits()):
            send_wake_up()
    return looked_at


def claim_check() -> Batch | None:
    """Take the archive that has come least far. A claim that expired speaks against the file that was being read."""
    found = Batch.objects.unchecked().values_list("pk", "claim_token", "check_faults").first()
    if found is None:
        return None
    pk, lost_token, faults = found
    token = uuid4()
    taken = Batch.objects.unchecked().filter(pk=pk, claim_token=lost_token).order_by()
    expires = Now() + timedelta(seconds=settings.CLAIM_SECONDS)
    faults += lost_token is not None
    if not taken.update(claim_token=token, claim_expires_at=expires, check_faults=faults):
        return None
    return Batch.objects.select_related("case", "submitted_by", "laboratory").get(pk=pk)


def check_and_release(batch: Batch) -> int:
    """Check for a while, then let another step go on."""
    try:
        looked_at = check(batch)
    except ClaimLost:
        logger.info("batch_check_lost", batch=str(batch.pk))
        looked_at = 0
    except StorageUnavailable:
        # Where the store is well it is this archive that can't be read: its claim runs out, which counts against it.
        if not private_files().works():
            release(batch)
        raise
    release(batch)
    return looked_at


def release(batch: Batch) -> None:
    Batch.objects.filter(pk=batch.pk, claim_token=batch.claim_token).update(claim_token=None, claim_expires_at=None)


def check(batch: Batch) -> int:
    """Look at files until the second is over; after the last one, end the check."""
    ends = time.monotonic() + SLICE_SECONDS
    # At the bound the next file was left out; what failed even then is not that file.
    if batch.check_faults > MAX_FAULTS:
        refuse(batch, UploadRejected("check_failed", ARCHIVE_FAILED))
        return 0
    try:
        stored = batch.archive.open("rb")
    except FileNotFoundError:
        refuse(batch, UploadRejected("archive_missing", "The stored archive is missing. Send it again."))
        return 0
    with stored:
        try:
            with archives.opened(stored.file) as archive:
                return check_members(batch, archive, ends)
        except UploadRejected as error:
            refuse(batch, error)
            return 0


def check_members(batch: Batch, archive: zipfile.ZipFile, ends: float) -> int:
    members = archive.infolist()
    labels = archives.labels_of(archive)
    first = batch.members_checked
    if batch.members_total is None:
        Batch.objects.filter(pk=batch.pk).update(members_total=len(members))
        batch.members_total = len(members)
    for number in range(first, len(members)):
        # At least one, however long it took to open the archive.
        if number > first and time.monotonic() > ends:
            return number - first
        check_member(batch, number, archive, members[number], labels)
    end_check(batch, labels, [member.filename for member in members if not archives.is_ignored(member.filename)])
    return len(members) - first


def check_member(
    batch: Batch, number: int, archive: zipfile.ZipFile, member: zipfile.ZipInfo, labels: archives.Labels
) -> None:
    if archives.is_ignored(member.filename) or member.is_dir():
        move_on(batch, number)
        return
    read: Callable[[], bytes] = partial(archives.content_of, archive, member)
    if batch.check_faults >= MAX_FAULTS and number == batch.members_checked:
        read = given_up
    try:
        keep_member(batch, number, member.filename, read, archives.label_for(labels, member.filename)[1])
    except StorageUnavailable:
        raise
    except Unavailable:
        # Too much is being decoded at this moment, which is not this file's fault: another step reads it.
        raise ClaimLost from None


def given_up() -> bytes:
    raise UploadRejected("check_failed", CHECK_FAILED)


def end_check(batch: Batch, labels: archives.Labels, names: list[str]) -> None:
    """Every file is looked at: start, unless a person is asked first. The archive is not needed any longer."""
    with transaction.atomic():
        ended = Batch.objects.filter(pk=batch.pk, claim_token=batch.claim_token, cancelled_at=None)
        if not ended.update(checked_at=Now(), claim_token=None, claim_expires_at=None):
            raise ClaimLost
        note_complaints(batch, labels, names)
        begin_unless_asked(batch)
    remove_archive(batch)
    logger.info("batch_checked", batch=str(batch.pk), files=batch.members_total)
    finish_batches()


def refuse(batch: Batch, error: HematoVisionError) -> None:
    """The archive is of no use as a whole. Most of that is said when it is sent; this is for what changed since."""
    with transaction.atomic():
        ended = Batch.objects.filter(pk=batch.pk, claim_token=batch.claim_token, cancelled_at=None)
        if not ended.update(refused_code=error.code, checked_at=Now(), claim_token=None, claim_expires_at=None):
            raise ClaimLost
        BatchMember.objects.create(
            batch=batch, number=batch.members_checked, name="", code=error.code, message=error.message[:300]
        )
        begin_unless_asked(batch)
    remove_archive(batch)
    finish_batches()


def begin_unless_asked(batch: Batch) -> None:
    """Start what is checked, unless a person starts it: as the page asked, or because the case is closed by now."""
    if not batch.images.exists() or (not batch.asks_before_start and held_open(batch.case).is_editable):
        begin(batch)


def remove_archive(batch: Batch) -> None:
    name = str(batch.archive.name)
    batch.archive.storage.delete(name)
    Batch.objects.filter(pk=batch.pk, archive=name).update(archive="")


def finish_batches() -> int:
    """Note the end of every started batch of which nothing waits any longer; returns how many ended.

    Whatever its files show counts, also what another batch has taken over.
    """
    waits = {"image__status__in": [ImageStatus.QUEUED, ImageStatus.CLAIMED], "image__void": None}
    waiting = BatchMember.objects.filter(batch=OuterRef("pk"), **waits)
    open_ones = Batch.objects.filter(
        finished_at=None, cancelled_at=None, started_at__isnull=False, checked_at__isnull=False
    )
    ended = 0
    for batch in open_ones.filter(~Exists(waiting)).select_related("case", "submitted_by", "laboratory"):
        with transaction.atomic():
            # A retry holds the row as well; what it queued is seen by a statement that comes after the lock only.
            Batch.objects.select_for_update(no_key=True).get(pk=batch.pk)
            if open_ones.filter(~Exists(waiting), pk=batch.pk).update(finished_at=timezone.now(), paused_at=None):
                notify(user=batch.submitted_by, kind=NotificationKind.BATCH_FINISHED, case=batch.case)
                audit.record(action="batch_finished", actor=None, target=batch, laboratory=batch.laboratory)
                announce(batch.laboratory_id, WebhookEvent.BATCH_FINISHED, told(batch))
                ended += 1
    return ended


def told(batch: Batch) -> dict[str, Any]:
    """What other systems are told of a finished batch: ids and counts."""
    progress = progress_of([batch])[batch.pk]
    return {
        "batch": str(batch.pk),
        "case": str(batch.case_id),
        "total": progress.total,
        "classified": progress.classified,
        "failed": progress.failed,
        "refused": progress.refused,
        "url": f"{API}/batches/{batch.pk}/",
    }


def sweep_batches() -> None:
    """Mend what was left half-way: folders nobody adds to, archives nobody needs, checks nobody goes on with."""
    Batch.objects.abandoned().update(checked_at=Now(), claim_token=None, claim_expires_at=None)
    for batch in Batch.objects.filter(Q(checked_at__isnull=False) | Q(cancelled_at__isnull=False)).exclude(archive=""):
        remove_archive(batch)
    # A worker held these when their batch was cancelled, and brought them back unclassified.
    brought_back = CellImage.objects.filter(
        status=ImageStatus.QUEUED, on_hold=True, batch__cancelled_at__isnull=False, void=None
    )
    for batch in Batch.objects.filter(pk__in=brought_back.values("batch")).select_related("submitted_by"):
        with transaction.atomic():
            void_waiting(batch, by=batch.submitted_by)
    finish_batches()
    if Batch.objects.unchecked().exists():
        send_wake_up()
