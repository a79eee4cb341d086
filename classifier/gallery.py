"""The gallery of a case: every image as a tile, in trays by what it counts as, what needs a person first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zlib import crc32

from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone

from accounts.models import User
from classifier.errors import FAILURES, InvalidInput
from classifier.models import Case, CellImage, ImageStatus, LaboratorySettings, Review, Void
from ml.labels import CELL_TYPES, display_name

# From this confidence on, and with no other class possible, a suggestion goes straight to the tray of its class.
CONFIDENT_FROM = 0.8
COMMON = frozenset({"neutrophil", "lymphocyte", "monocyte", "eosinophil"})
NO_LEUKOCYTE = frozenset({"platelet", "smudge_cell", "artefact"})
KEYS = 9

UNIDENTIFIED, FAILED, WAITING, DOUBTFUL, UNUSABLE, VOID = (
    "unidentified",
    "failed",
    "waiting",
    "doubtful",
    "unusable",
    "void",
)
STATES: dict[str, tuple[str, str]] = {
    UNIDENTIFIED: ("Unidentified", "The model gives no class. Say what they are."),
    FAILED: ("Failed", "Could not be classified. Read them by hand, or queue them again."),
    WAITING: ("Waiting", "Not classified yet. They move by themselves."),
    DOUBTFUL: ("Low confidence", "Under 80 %, or another class can't be ruled out."),
    UNUSABLE: ("Unusable", "Reviewed, and not counted."),
    VOID: ("Void", "Entered in error. They count nowhere."),
}
# What blocks a release, by the codes of the differential.
FILTERS: dict[str, str] = {
    "unreviewed": "not reviewed yet",
    UNIDENTIFIED: "unidentified and not reviewed yet",
    FAILED: "failed",
    "queued": "not classified yet",
}
# A case of more tiles than this shows the first of each tray, and a tray of its own in pages of this size.
TILES_ON_PAGE = 600
TILES_IN_FOLDED_TRAY = 40


@dataclass(frozen=True)
class Tile:
    """One image as the gallery shows it. `says` is the model's class ("" where it abstains or has not spoken), `place`
    where it stands in its tray, `final_label` what the review that counts says ("" where there is none, or no class).
    """

    id: UUID
    status: str
    version: str
    width: int
    height: int
    has_thumbnail: bool
    failure: str
    by_hand: bool
    queued_at: datetime
    attempts: int
    says: str
    confidence: float
    possible: tuple[str, ...]
    review_id: UUID | None
    verdict: str
    final_label: str
    reviewed_at: datetime | None
    reader: User | None
    void_reason: str
    void_by: str
    void_at: datetime | None

    @property
    def is_void(self) -> bool:
        return self.void_at is not None

    @property
    def is_waiting(self) -> bool:
        return self.status in {ImageStatus.QUEUED, ImageStatus.CLAIMED}

    @property
    def tray(self) -> str:
        if self.is_void:
            return VOID
        if self.status == ImageStatus.REVIEWED:
            return self.final_label or UNUSABLE
        if self.status == ImageStatus.FAILED:
            return FAILED
        if self.is_waiting:
            return WAITING
        if not self.says:
            return UNIDENTIFIED
        return self.says if self.confidence >= CONFIDENT_FROM and len(self.possible) < 2 else DOUBTFUL

    @property
    def place(self) -> float:
        """The least confident first; what waits, and what failed, in the order of the queue."""
        waits = self.is_waiting or self.status == ImageStatus.FAILED
        return self.queued_at.timestamp() if waits else round(self.confidence, 4)

    @property
    def others_possible(self) -> list[str]:
        return [slug for slug in self.possible if slug != self.says]

    @property
    def blocks_as(self) -> str:
        """The filter that shows it ("" where it blocks no release)."""
        if self.is_void or self.status == ImageStatus.REVIEWED:
            return ""
        if self.status == ImageStatus.CLASSIFIED:
            return "unreviewed" if self.says else UNIDENTIFIED
        return FAILED if self.status == ImageStatus.FAILED else "queued"


@dataclass
class Tray:
    """Tiles of one kind. `slug` is the cell type that a tile gets which is put here ("" for a state); `total` counts
    the tiles that belong here, of which `tiles` are shown.
    """

    key: str
    name: str
    slug: str = ""
    digit: int | None = None
    help: str = ""
    tiles: list[Tile] = field(default_factory=list)
    total: int = 0

    @property
    def is_folded(self) -> bool:
        return self.total > len(self.tiles)


@dataclass(frozen=True)
class Key:
    """A cell type that can be said, and the digit that says it (None: by the list of all types)."""

    slug: str
    digit: int | None

    @property
    def name(self) -> str:
        return display_name(self.slug)


@dataclass(frozen=True)
class Gallery:
    """The trays of a case, in the order in which they want a person, the counts of all its images, `failures`, the
    fingerprint of those that failed, and those that are void.
    """

    trays: list[Tray]
    images: int
    reviewed: int
    waiting: int
    failures: str
    voided: list[Tile]
    pages: int = 1

    @property
    def shown(self) -> int:
        return sum(len(tray.tiles) for tray in self.trays)

    @property
    def found(self) -> int:
        return sum(tray.total for tray in self.trays)

    @property
    def is_folded(self) -> bool:
        return any(tray.is_folded for tray in self.trays)


def keys_of(settings: LaboratorySettings) -> list[Key]:
    """Every cell type in the laboratory's order, the first nine by their digits; types it has not listed come last."""
    listed = [rule["slug"] for rule in settings.cell_types]
    slugs = [*listed, *(slug for slug in CELL_TYPES if slug not in listed)]
    return [Key(slug, place if place <= KEYS else None) for place, slug in enumerate(slugs, start=1)]


def gallery_of(case: Case, keys: Sequence[Key], *, show: str = "", tray: str = "", page: int = 1) -> Gallery:
    """The gallery of a case, in one query. `show` is one of FILTERS; `tray` shows one tray alone, in pages."""
    tiles = tiles_of(CellImage.objects.filter(case=case))
    trays = empty_trays(keys)
    wanted = [tile for tile in tiles if not show or tile.blocks_as == show]
    for tile in sorted(wanted, key=lambda tile: (tile.place, str(tile.id))):
        trays[tile.tray].tiles.append(tile)
    for each in trays.values():
        each.total = len(each.tiles)
    counting = [tile for tile in tiles if not tile.is_void]
    failed = [tile.attempts for tile in counting if tile.status == ImageStatus.FAILED]
    counts: dict[str, Any] = {
        "images": len(counting),
        "reviewed": sum(tile.status == ImageStatus.REVIEWED for tile in counting),
        "waiting": sum(tile.is_waiting for tile in counting),
        "failures": fingerprint(len(failed), sum(failed)),
        "voided": [tile for tile in tiles if tile.is_void],
    }
    if tray in trays:
        alone = trays[tray]
        pages = max(1, -(-alone.total // TILES_ON_PAGE))
        alone.tiles = alone.tiles[(page - 1) * TILES_ON_PAGE : page * TILES_ON_PAGE]
        return Gallery([alone], **counts, pages=pages)
    if len(wanted) > TILES_ON_PAGE:
        for each in trays.values():
            each.tiles = each.tiles[:TILES_IN_FOLDED_TRAY]
    return Gallery(list(trays.values()), **counts)


def empty_trays(keys: Sequence[Key]) -> dict[str, Tray]:
    """All trays by their keys: what needs a person, then the rare types, the common ones, and what counts nowhere."""

    def of_types(belongs: Callable[[str], bool]) -> list[Tray]:
        return [Tray(key.slug, key.name, key.slug, key.digit) for key in keys if belongs(key.slug)]

    def of_state(key: str) -> Tray:
        name, words = STATES[key]
        return Tray(key, name, help=words)

    trays = [
        *(of_state(key) for key in (UNIDENTIFIED, FAILED, WAITING, DOUBTFUL)),
        *of_types(lambda slug: slug not in COMMON | NO_LEUKOCYTE),
        *of_types(COMMON.__contains__),
        *of_types(NO_LEUKOCYTE.__contains__),
        *(of_state(key) for key in (UNUSABLE, VOID)),
    ]
    return {tray.key: tray for tray in trays}


VERSIONED = ("id", "status", "current_review_id", "classified_at", "has_thumbnail", "void__id")
SHOWN = (
    *VERSIONED,
    "width",
    "height",
    "failure_code",
    "queued_at",
    "attempts",
    "void__reason",
    "void__at",
    "void__by__full_name",
    "void__by__email",
    "predictions__created_at",
    "predictions__id",
    "predictions__label",
    "predictions__suggestion",
    "predictions__confidence",
    "predictions__conformal_set",
    "current_review__verdict",
    "current_review__final_label",
    "current_review__created_at",
    "current_review__failure_code",
    "current_review__reader__id",
    "current_review__reader__full_name",
    "current_review__reader__email",
)


def version_of(row: dict[str, Any]) -> str:
    """A short name of how an image stands now: a page that shows the same one has nothing to load."""
    return f"{crc32(repr([str(row[name]) for name in VERSIONED]).encode()):08x}"


def tiles_of(images: QuerySet[CellImage]) -> list[Tile]:
    """The tiles of these images, in one query."""
    readers: dict[UUID, User] = {}
    newest: dict[UUID, dict[str, Any]] = {}
    # One row an image and prediction, the newest prediction last: it is the one that counts.
    for row in images.order_by("predictions__created_at", "predictions__id").values(*SHOWN):
        newest[row["id"]] = row
    return [tile_of(row, readers) for row in newest.values()]


def tile_of(row: dict[str, Any], readers: dict[UUID, User]) -> Tile:
    reader_id = row["current_review__reader__id"]
    if reader_id and reader_id not in readers:
        readers[reader_id] = User(
            id=reader_id, full_name=row["current_review__reader__full_name"], email=row["current_review__reader__email"]
        )
    # The set of what is not a cell names classes that mean nothing.
    named = bool(row["predictions__label"] or row["predictions__suggestion"])
    return Tile(
        id=row["id"],
        status=row["status"],
        version=version_of(row),
        width=row["width"],
        height=row["height"],
        has_thumbnail=row["has_thumbnail"],
        failure=FAILURES.get(row["failure_code"], "") if row["failure_code"] else "",
        by_hand=bool(row["failure_code"] or row["current_review__failure_code"]),
        queued_at=row["queued_at"],
        attempts=row["attempts"],
        says=row["predictions__label"] or "",
        confidence=row["predictions__confidence"] or 0.0,
        possible=tuple(row["predictions__conformal_set"] or ()) if named else (),
        review_id=row["current_review_id"],
        verdict=row["current_review__verdict"] or "",
        final_label=row["current_review__final_label"] or "",
        reviewed_at=row["current_review__created_at"],
        reader=readers[reader_id] if reader_id else None,
        void_reason=row["void__reason"] or "",
        void_by=row["void__by__full_name"] or row["void__by__email"] or "",
        void_at=row["void__at"],
    )


# A row may be committed a while after the moment that it bears; what was seen already is known by its version.
OVERLAP = timedelta(seconds=10)
CHANGES_AT_ONCE = 1000


@dataclass(frozen=True)
class Changes:
    """The images that may have changed since a cursor, by id and version, and the cursor to ask with next time.

    `too_many` says that there are more than a page would load one by one.
    """

    cursor: str
    versions: dict[str, str]
    too_many: bool


def cursor_of(moment: datetime, failures: str) -> str:
    """Opaque to clients: a moment, and a fingerprint of the failed images, since failing leaves no time on a row."""
    return f"{moment.timestamp():.3f}-{failures}"


def fingerprint(failed: int, attempts: int | None) -> str:
    return f"{failed}-{attempts or 0}"


def changes_since(case: Case, cursor: str) -> Changes:
    """What has been uploaded, claimed, classified, reviewed or voided since the cursor; two queries.

    Raises InvalidInput (bad_cursor).
    """
    seconds, _, known_failures = cursor.partition("-")
    try:
        since = datetime.fromtimestamp(float(seconds), UTC) - OVERLAP
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput("bad_cursor", "This page has lost its place. Load it again.") from error
    moment = timezone.now()
    failed = Q(status=ImageStatus.FAILED, void=None)
    images = CellImage.objects.filter(case=case)
    counted = images.filter(failed).aggregate(n=Count("pk"), attempts=Sum("attempts"))
    failures = fingerprint(counted["n"], counted["attempts"])
    touched = Q(uploaded_at__gt=since) | Q(queued_at__gt=since) | Q(classified_at__gt=since)
    touched |= Q(status=ImageStatus.CLAIMED)
    touched |= Q(pk__in=Review.objects.filter(image__case=case, created_at__gt=since).values("image"))
    touched |= Q(pk__in=Void.objects.filter(image__case=case, at__gt=since).values("image"))
    if failures != known_failures:
        touched |= failed
    rows = list(images.filter(touched).order_by().values(*VERSIONED)[: CHANGES_AT_ONCE + 1])
    versions = {str(row["id"]): version_of(row) for row in rows[:CHANGES_AT_ONCE]}
    return Changes(cursor_of(moment, failures), versions, len(rows) > CHANGES_AT_ONCE)
