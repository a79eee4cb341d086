"""Whether the files are what the rows say: what is missing, altered, left behind, or known to no row.

Files and rows change while this looks, so nothing is reported before it was asked for again.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from itertools import islice
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import structlog
from django.core.cache import cache
from django.core.files.storage import default_storage
from django.utils import timezone

from accounts import audit
from classifier import drafts, thumbnails
from classifier.models import Batch, CellImage, Export
from classifier.storage import private_files

logger = structlog.get_logger(__name__)
# A file is written before its row, so a young one without a row may be an upload under way.
ORPHAN_SECONDS = 3600
FOLDERS = ("archives/", "exports/", "originals/", "thumbnails/")
AT_ONCE = 500
IN_A_LIST = 100
# Of the check that runs all the time, a little of it every few minutes.
SLICE_SECONDS = 1.0
OUTCOME = "storage-check"
Step = Callable[[int], None]


def no_step(size: int) -> None:
    """Nobody wants to know how far it is."""


@dataclass
class Findings:
    """What was looked at, and the ids or names of what is not as it should be."""

    images: int = 0
    hashed: int = 0
    missing: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    without_thumbnail: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """A thumbnail is made again, and a file too many harms no result; the rest needs somebody."""
        return not (self.missing or self.altered or self.left_behind)

    def as_json(self) -> dict[str, Any]:
        return {"sound": self.is_sound, **vars(self)}


def check_images(images: Iterable[CellImage], findings: Findings, *, hashed: set[UUID] | None, step: Step) -> None:
    """Compare the images' files with their rows; `hashed` are those that are read and hashed (None: all of them)."""
    for image in images:
        if hasattr(image, "removed_picture"):
            if any(map(default_storage.exists, files_of(image))):
                findings.left_behind.append(str(image.pk))
            continue
        findings.images += 1
        reads = hashed is None or image.pk in hashed
        if fault := fault_of(image, reads=reads):
            if still_named(image):
                getattr(findings, fault).append(str(image.pk))
        else:
            findings.hashed += reads
        if image.has_thumbnail and not any(map(default_storage.exists, thumbnails.paths_of(image))):
            findings.without_thumbnail.append(str(image.pk))
        step(image.stored_bytes if reads else 0)


def files_of(image: CellImage) -> list[str]:
    """The names of the original and of every form that its thumbnail can have."""
    return [str(image.file.name), *thumbnails.paths_of(image)]


def fault_of(image: CellImage, *, reads: bool) -> str:
    """`missing`, `altered`, or empty. Without reading it, only its size tells."""
    try:
        if not reads:
            return "" if default_storage.size(str(image.file.name)) == image.stored_bytes else "altered"
        with default_storage.open(str(image.file.name)) as file:
            digest = sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return "missing"
    return "" if digest == image.stored_sha256 else "altered"


def still_named(image: CellImage) -> bool:
    """Whether the row still names that very file: it may have been removed or restored meanwhile."""
    same = CellImage.objects.filter(pk=image.pk, file=image.file.name, stored_sha256=image.stored_sha256)
    return same.filter(removed_picture=None).exists()


def all_images() -> Generator[CellImage, None, None]:
    fields = ("file", "stored_sha256", "stored_bytes", "has_thumbnail", "removed_picture__image")
    rows = CellImage.objects.select_related("removed_picture").only(*fields).order_by("pk")
    yield from rows.iterator(chunk_size=AT_ONCE)


def verify_files(*, sample: int | None = None, step: Step = no_step) -> Findings:
    """Compare all rows with all files; with `sample` only so many files, taken by chance, are read and hashed."""
    findings = Findings()
    chosen = None
    if sample is not None:
        drawn = CellImage.objects.filter(removed_picture=None).order_by("?").values_list("pk", flat=True)
        chosen = set(drawn[:sample])
    # Closed in any case: what is left of a list in the database would be in the way of what comes next.
    with closing(all_images()) as images:
        check_images(images, findings, hashed=chosen, step=step)
    findings.orphans = list(orphans())
    return findings


def orphans() -> Iterator[str]:
    """Names of files, older than an hour, that no row names."""
    latest = time.time() - ORPHAN_SECONDS
    # Only where files of ours lie: other instances may have theirs in the same bucket, behind a prefix.
    found = (file for folder in FOLDERS for file in private_files().files(folder))
    names_of_old = (file.name for file in found if file.modified_at < latest)
    while names := list(islice(names_of_old, AT_ONCE)):
        known = named(names)
        yield from (name for name in names if name not in known)


def named(names: list[str]) -> set[str]:
    """Those of the names that a row stands behind. A file bears the id of its row."""
    ids = [UUID(stem) for name in names if is_uuid(stem := stem_of(name))]
    images = CellImage.objects.filter(pk__in=ids, removed_picture=None).only("file", "has_thumbnail")
    known: set[str] = set()
    for image in images:
        known.update(files_of(image))
    exports = set(Export.objects.filter(pk__in=ids).values_list("file", flat=True))
    known |= {name for name in names if drafts.whole_of(name) in exports}
    return known | set(Batch.objects.filter(pk__in=ids).values_list("archive", flat=True))


def stem_of(name: str) -> str:
    """The 36 characters of the id that a name of ours begins with, whatever was added to it."""
    return PurePosixPath(name).name[:36]


def is_uuid(text: str) -> bool:
    with suppress(ValueError):
        return str(UUID(text)) == text
    return False


def remove_orphans(findings: Findings) -> int:
    """Delete what no row names, and what is left of removed pictures; audited by ids. Returns how many files."""
    names = list(findings.orphans)
    for image in CellImage.objects.filter(pk__in=findings.left_behind, removed_picture__isnull=False):
        names += filter(default_storage.exists, files_of(image))
    for name in names:
        default_storage.delete(name)
    if names:
        ids = sorted({stem for name in names if is_uuid(stem := stem_of(name))})
        audit.record(action="orphaned_files_removed", actor=None, files=len(names), ids=ids[:AT_ONCE])
    findings.orphans, findings.left_behind = [], []
    return len(names)


def images_after(pk: UUID | None) -> Iterator[CellImage]:
    """In lists: for an iterator outside a transaction PostgreSQL would first collect all that is left."""
    rows = CellImage.objects.select_related("removed_picture").order_by("pk")
    while some := list((rows.filter(pk__gt=pk) if pk else rows)[:IN_A_LIST]):
        yield from some
        pk = some[-1].pk


def check_some() -> Findings:
    """Check the next images for about a second, round and round through all of them, and keep what was found.

    What a retention rule removed and what is still there, since a worker died in between, is deleted here.
    """
    before = cache.get(OUTCOME) or {}
    findings = Findings(missing=before.get("missing", []), altered=before.get("altered", []))
    if not (after := before.get("after")):
        findings = Findings()
    ends, last = time.monotonic() + SLICE_SECONDS, None
    for image in images_after(UUID(after) if after else None):
        check_images([image], findings, hashed=None, step=no_step)
        last = image.pk
        if time.monotonic() > ends:
            break
    else:
        last = None
    findings.images += before.get("images", 0) if before.get("after") else 0
    remove_orphans(Findings(left_behind=findings.left_behind))
    outcome = {
        "at": timezone.now().isoformat(),
        "after": str(last) if last else "",
        "images": findings.images,
        "missing": findings.missing[:AT_ONCE],
        "altered": findings.altered[:AT_ONCE],
    }
    cache.set(OUTCOME, outcome, timeout=timedelta(days=30).total_seconds())
    if findings.missing or findings.altered:
        logger.error("storage_unsound", missing=len(findings.missing), altered=len(findings.altered))
    elif last is None:
        logger.info("storage_checked", images=findings.images)
    return findings


def latest_outcome() -> dict[str, Any]:
    """What the check that runs all the time has found on this round so far; empty before its first look."""
    return cache.get(OUTCOME) or {}
