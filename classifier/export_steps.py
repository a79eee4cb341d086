"""The machine's side of exports: a slice at a time, between the pictures of others.

The guarantees, and what gives each of them:
- one file, never two: whoever finishes does so by an UPDATE guarded by the claim's token; the row names the one file;
- a worker that dies loses one slice: its claim expires, and the next one goes on from the last slice that counts;
  three in a row that come to nothing end the export;
- a late worker harms nothing: who takes over a lost claim goes on in a file of its own, a copy of what counts;
- a picture that somebody waits for is not delayed by more than a slice; the last one hashes the file as well.
"""

import time
from datetime import timedelta
from hashlib import file_digest
from typing import Any
from uuid import uuid4

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Coalesce, Now

from accounts import audit
from accounts.built_statements import BuiltSelect
from classifier import drafts
from classifier.claims import anybody_waits, anything_waits
from classifier.errors import StorageUnavailable
from classifier.exports import WRITERS
from classifier.models import Export
from classifier.querysets import claim_is_over
from classifier.storage import private_files
from classifier.wakeup import send_wake_up

logger = structlog.get_logger(__name__)
# A picture that is uploaded meanwhile waits no longer than this.
SLICE_SECONDS = 0.5
MAX_FAULTS = 3
# Asked at every turn of a worker, and nearly always answered by no: then nothing else is asked.
ANY_UNFINISHED = BuiltSelect(Export.objects.filter(finished_at=None).order_by().values_list("pk")[:1])
ORPHAN_SECONDS = 3600


def continue_export(classified: int = 0) -> int:
    """Write the next slice of an export; returns 0 where there was nothing to do, or no time for it.

    `classified` is how many images were classified right before: as long as that goes on, nothing is done while a
    picture that somebody waits for is queued.
    """
    if not ANY_UNFINISHED.any() or (classified and anybody_waits()):
        return 0
    export = claim_export()
    if export is None:
        return 0
    goes_on = True
    try:
        write_slice(export)
    except StorageUnavailable:
        give_back(export)
        goes_on = False
    finally:
        # One wake-up in, at most one out: where images go on being classified, theirs serves the next slice as well.
        if goes_on and unheld_exports().exists() and not (classified and anything_waits()):
            send_wake_up()
    return 1


def give_back(export: Export) -> None:
    """The store did not answer, which costs the export nothing: the sweep wakes somebody, who goes on from here.

    Where the store works otherwise, it is one picture that can't be read: that counts, or it would be tried for ever.
    """
    drafts.forget_copy(str(export.file.name))
    faults = F("faults") + int(private_files().works())
    held(export).update(claim_token=None, claim_expires_at=None, faults=faults)


def unheld_exports() -> QuerySet[Export]:
    """What is still to be written and nobody holds, the one that has come least far first."""
    free = Q(claim_token=None) | claim_is_over()
    return Export.objects.filter(free, finished_at=None).order_by("rows_written", "requested_at", "id")


def claim_export() -> Export | None:
    """Take the next export. A claim that expired counts against it: three in a row, and it is given up."""
    found = unheld_exports().values_list("pk", "claim_token", "faults").first()
    if found is None:
        return None
    pk, lost_token, faults = found
    token = uuid4()
    faults += lost_token is not None
    taken = unheld_exports().filter(pk=pk, claim_token=lost_token).order_by()
    if not taken.update(
        claim_token=token,
        claim_expires_at=Now() + timedelta(seconds=settings.CLAIM_SECONDS),
        faults=faults,
        started_at=Coalesce("started_at", Now()),
    ):
        return None
    export: Export = Export.objects.select_related("laboratory").get(pk=pk)
    if faults >= MAX_FAULTS:
        finish(export, export.rows_written, failure_code="export_failed")
        return None
    try:
        begin_slice(export, lost=lost_token is not None)
    except StorageUnavailable:
        # After a lost claim this one expires as well, so that the next one takes a file of its own; it does not count.
        freed = {"faults": F("faults") - 1} if lost_token else {"claim_token": None, "claim_expires_at": None}
        held(export).update(**freed)
        if export.file:
            drafts.forget_copy(str(export.file.name))
        return None
    return export


def held(export: Export) -> QuerySet[Export]:
    return Export.objects.filter(pk=export.pk, claim_token=export.claim_token, finished_at=None)


def begin_slice(export: Export, *, lost: bool) -> None:
    """Make the file ready: cut back to what counts. After a lost claim it is a copy: its writer may still live."""
    before = str(export.file.name) if export.file else ""
    if not before or not drafts.bring(before, export.bytes_written):
        # Nothing was written yet, or the file is gone or shorter than it was: from the beginning.
        export.rows_written, export.bytes_written, export.position, before = 0, 0, None, ""
    if not before or lost:
        extension = WRITERS[export.kind].extension
        export.file.name = f"exports/{export.laboratory_id}/{export.pk}-{uuid4().hex[:8]}.{extension}"
        if before:
            drafts.begin_with(str(export.file.name), before, export.bytes_written)
        else:
            drafts.begin(str(export.file.name))
    if export.rows_total is None:
        export.rows_total = WRITERS[export.kind].total(export)
    now = {name: getattr(export, name) for name in ("rows_written", "bytes_written", "position", "rows_total")}
    kept = held(export).update(file=export.file.name, **now)
    if kept and before and lost:
        drafts.discard(before)


def write_slice(export: Export) -> None:
    """Write for a while and note how far it came, that it is finished, or that no store would take it."""
    try:
        write_and_note(export)
    except drafts.DraftTooLarge:
        # The sweep removes what was written.
        finish(export, export.rows_written, failure_code="export_too_large")
        drafts.forget_copy(str(export.file.name))


def write_and_note(export: Export) -> None:
    name = str(export.file.name)
    written = WRITERS[export.kind].write(export, drafts.path_of(name), time.monotonic() + SLICE_SECONDS)
    rows = export.rows_written + written.rows
    if written.position is None:
        about = of_finished_file(name, rows)
        drafts.store(name)
        if kept := finish(export, rows, **about):
            drafts.tidy(name)
    else:
        kept = held(export).update(
            rows_written=rows,
            bytes_written=drafts.keep(name, export.bytes_written),
            position=written.position,
            # Three in a row end it; a large one may be interrupted often.
            faults=0,
            claim_token=None,
            claim_expires_at=None,
        )
    if not kept:
        logger.info("export_claim_lost", export=str(export.pk))


def of_finished_file(name: str, rows: int) -> dict[str, Any]:
    """What the row says of a finished file."""
    path = drafts.path_of(name)
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {
        "rows_written": rows,
        "rows_total": rows,
        "bytes_written": path.stat().st_size,
        "sha256": digest,
        "expires_at": Now() + timedelta(days=settings.EXPORT_DAYS),
    }


@transaction.atomic
def finish(export: Export, rows: int, **fields: Any) -> int:
    """Note the end, once; returns 0 where somebody else did, or withdrew it."""
    # What a writer kept in `position` to go on may tell more than its file does.
    over = {"finished_at": Now(), "claim_token": None, "claim_expires_at": None, "position": None}
    ended = held(export).update(**over, **fields)
    if ended:
        about = {"kind": export.kind, "rows": rows, "code": fields.get("failure_code", "")}
        audit.record(action="export_finished", actor=None, target=export, laboratory=export.laboratory, **about)
        logger.info("export_finished", export=str(export.pk), **about)
    return ended


def sweep_exports() -> None:
    """Remove files whose time is over, or that belong to nothing; wake a worker where an export waits."""
    drafts.forget_old_copies()
    over = Q(expires_at__lte=Now()) | (Q(finished_at__isnull=False) & ~Q(failure_code=""))
    for pk, name in Export.objects.filter(over).exclude(file="").values_list("pk", "file"):
        drafts.discard(name)
        Export.objects.filter(pk=pk, file=name).update(file="")
    remove_orphans()
    if unheld_exports().exists():
        send_wake_up()


def remove_orphans() -> int:
    """Remove files that no row names, left by a worker that died between a copy and its row; returns how many."""
    latest = time.time() - ORPHAN_SECONDS
    old = {
        file.name: drafts.whole_of(file.name) for file in private_files().files("exports/") if file.modified_at < latest
    }
    named = set(Export.objects.filter(file__in=old.values()).values_list("file", flat=True)) if old else set()
    orphans = [name for name, whole in old.items() if whole not in named]
    for name in orphans:
        private_files().delete(name)
    return len(orphans)
