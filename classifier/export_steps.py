"""The machine's side of exports: a slice at a time, between the pictures of others.

The guarantees, and what gives each of them:
- one file, never two: whoever finishes does so by an UPDATE guarded by the claim's token; the row names the one file;
- a worker that dies loses one slice: its claim expires, and the next one goes on from the last slice that counts;
  three in a row that come to nothing end the export;
- a late worker harms nothing: who takes over a lost claim goes on in a file of its own, a copy of what counts;
- a picture that somebody waits for is not delayed by more than a slice; the last one hashes the file as well.
"""

import os
import shutil
import time
from datetime import timedelta
from hashlib import file_digest
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from django.conf import settings
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce, Now

from accounts import audit
from classifier.exports import WRITERS
from classifier.models import CellImage, Export, Priority
from classifier.querysets import claim_is_over
from classifier.wakeup import send_wake_up

logger = structlog.get_logger(__name__)
# A picture that is uploaded meanwhile waits no longer than this.
SLICE_SECONDS = 0.5
MAX_FAULTS = 3
ORPHAN_SECONDS = 3600


def continue_export(classified: int = 0) -> int:
    """Write the next slice of an export; returns 0 where there was nothing to do, or no time for it.

    `classified` is how many images were classified right before: as long as that goes on, nothing is done while a
    picture that somebody waits for is queued.
    """
    waiting = CellImage.objects.claimable()
    if classified and waiting.filter(priority=Priority.INTERACTIVE).exists():
        return 0
    export = claim_export()
    if export is None:
        return 0
    try:
        write_slice(export)
    finally:
        # One wake-up in, at most one out: where images go on being classified, theirs serves the next slice as well.
        if unheld_exports().exists() and not (classified and waiting.exists()):
            send_wake_up()
    return 1


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
    begin_slice(export, lost=lost_token is not None)
    return export


def held(export: Export) -> QuerySet[Export]:
    return Export.objects.filter(pk=export.pk, claim_token=export.claim_token, finished_at=None)


def storage_of() -> FileSystemStorage:
    """Where the files lie: the same private storage as the originals."""
    if not isinstance(default_storage, FileSystemStorage):
        message = "Exports are written to files, so the storage must be one of files."
        raise TypeError(message)
    return default_storage


def path_of(name: str) -> Path:
    return Path(storage_of().path(name))


def begin_slice(export: Export, *, lost: bool) -> None:
    """Make the file ready: cut back to what counts. After a lost claim it is a copy: its writer may still live."""
    before = path_of(str(export.file.name)) if export.file else None
    if before is None or not before.exists() or before.stat().st_size < export.bytes_written:
        # Nothing was written yet, or the file is gone or shorter than it was: from the beginning.
        export.rows_written, export.bytes_written, export.position, before = 0, 0, None, None
    if before is None or lost:
        extension = WRITERS[export.kind].extension
        export.file.name = f"exports/{export.laboratory_id}/{export.pk}-{uuid4().hex[:8]}.{extension}"
        path = path_of(str(export.file.name))
        path.parent.mkdir(mode=settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS, parents=True, exist_ok=True)
        path.touch(mode=settings.FILE_UPLOAD_PERMISSIONS)
        if before:
            shutil.copyfile(before, path)
    os.truncate(path_of(str(export.file.name)), export.bytes_written)
    if export.rows_total is None:
        export.rows_total = WRITERS[export.kind].total(export)
    now = {name: getattr(export, name) for name in ("rows_written", "bytes_written", "position", "rows_total")}
    kept = held(export).update(file=export.file.name, **now)
    if kept and before and lost:
        before.unlink(missing_ok=True)


def write_slice(export: Export) -> None:
    """Write for a while and note how far it came, or that it is finished."""
    path = path_of(str(export.file.name))
    written = WRITERS[export.kind].write(export, path, time.monotonic() + SLICE_SECONDS)
    rows = export.rows_written + written.rows
    if written.position is None:
        kept = finish(export, rows, **of_finished_file(path, rows))
    else:
        kept = held(export).update(
            rows_written=rows,
            bytes_written=path.stat().st_size,
            position=written.position,
            # Three in a row end it; a large one may be interrupted often.
            faults=0,
            claim_token=None,
            claim_expires_at=None,
        )
    if not kept:
        logger.info("export_claim_lost", export=str(export.pk))


def of_finished_file(path: Path, rows: int) -> dict[str, Any]:
    """What the row says of a finished file."""
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
    over = Q(expires_at__lte=Now()) | (Q(finished_at__isnull=False) & ~Q(failure_code=""))
    for pk, name in Export.objects.filter(over).exclude(file="").values_list("pk", "file"):
        path_of(name).unlink(missing_ok=True)
        Export.objects.filter(pk=pk, file=name).update(file="")
    remove_orphans()
    if unheld_exports().exists():
        send_wake_up()


def remove_orphans() -> int:
    """Remove files that no row names, left by a worker that died between a copy and its row; returns how many."""
    folder = path_of("exports")
    files = [path for path in folder.glob("*/*") if path.is_file()] if folder.exists() else []
    old = [path for path in files if path.stat().st_mtime < time.time() - ORPHAN_SECONDS]
    names = {path: str(path.relative_to(folder.parent)) for path in old}
    named = set(Export.objects.filter(file__in=names.values()).values_list("file", flat=True)) if old else set()
    orphans = [path for path, name in names.items() if name not in named]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)
