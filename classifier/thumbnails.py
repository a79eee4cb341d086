"""Small pictures for the gallery: the found cell with what is round it, or the whole picture.

A thumbnail lies beside the originals in the private storage, under a name made of ids only. It is a convenience: where
there is none, the pages show the original.
"""

import io
import struct
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog
from django.core.files import File
from django.db.models import Q
from PIL import Image

from classifier.errors import StorageUnavailable
from classifier.models import CellImage, ImageStatus
from classifier.storage import private_files

if TYPE_CHECKING:
    from ml.predictor import PreparedCell

logger = structlog.get_logger(__name__)
SIDE = 192
QUALITY = 85
# Whatever is drawn otherwise one day gets another number: browsers then ask for it anew.
DRAWING = 2
# What is drawn now, and behind it what earlier versions drew: that is shown until the image is classified again.
TYPES = {".jpg": "image/jpeg", ".webp": "image/webp"}
SWEEP = 48
SWEEP_SECONDS = 2.0
# Images whose picture this process could not draw: it would fail at every sweep. Another start tries each once more.
not_drawable: set[UUID] = set()
MOST_NOT_DRAWABLE = 1000
# What goes wrong with a picture or a disk. A thumbnail that can't be made is done without.
FAULTS = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    ArithmeticError,
    LookupError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)


def path_of(image: CellImage) -> str:
    """`originals/<laboratory>/<xx>/<id>.png` -> `thumbnails/<laboratory>/<xx>/<id>.jpg`."""
    return paths_of(image)[0]


def paths_of(image: CellImage) -> list[str]:
    """Every name that the image's thumbnail can have, the one of today first."""
    original = PurePosixPath(str(image.file.name))
    thumbnail = PurePosixPath("thumbnails", *original.parts[1:])
    return [str(thumbnail.with_suffix(suffix)) for suffix in TYPES]


def opened(image: CellImage) -> tuple[File, str]:
    """The stored thumbnail and its content type. Raises FileNotFoundError, StorageUnavailable."""
    for name, content_type in zip(paths_of(image), TYPES.values(), strict=True):
        with suppress(FileNotFoundError):
            return private_files().open(name), content_type
    raise FileNotFoundError(path_of(image))


def etag_of(image: CellImage) -> str:
    """Changes with the picture, with the cell that was found in it, and with the way in which it is drawn."""
    found_at = image.classified_at.timestamp() if image.classified_at else 0
    return f'"{image.stored_sha256[:24]}-{found_at:.0f}-{DRAWING}"'


def encoded(picture: Image.Image) -> bytes:
    """JPEG bytes of the picture, its longest side at most SIDE pixels.

    WebP has a third fewer bytes, but takes ten times as long: nearly half as long as the network.
    """
    small = picture if picture.mode == "RGB" else picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def drawn(content: bytes, box: Sequence[int] | None) -> bytes:
    """The thumbnail of a stored picture: the square `box` (left, top, right, bottom in pixels) of it, or all of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
            if picture.format == "JPEG":
                # Decoded at a fraction of its size, as long as what is cut stays large enough.
                shown = min(box[2] - box[0], box[3] - box[1]) if box else max(width, height)
                scale = max(1.0, shown / (2 * SIDE))
                picture.draft("RGB", (round(width / scale), round(height / scale)))
            across, down = picture.size[0] / width, picture.size[1] / height
            if box is None:
                return encoded(picture)
            left, top, right, bottom = box
            return encoded(
                picture.crop((round(left * across), round(top * down), round(right * across), round(bottom * down)))
            )


def of_prepared(cell: "PreparedCell") -> bytes | None:
    """The thumbnail of a picture that was prepared for the model with `shown_side`: what it saw, and of several cells
    the whole field. None where it can't be made.
    """
    try:
        return encoded(Image.fromarray(cell.shown)) if cell.shown is not None else None
    except FAULTS as error:
        logger.warning("thumbnail_not_made", error=type(error).__name__)
        return None


def store(image: CellImage, thumbnail: bytes) -> bool:
    """Put the thumbnail where it belongs, in place of an earlier one; returns whether that went well."""
    today, *earlier = paths_of(image)
    try:
        private_files().replace(today, thumbnail)
    except (OSError, StorageUnavailable) as error:
        logger.warning("thumbnail_not_stored", image=str(image.pk), error=type(error).__name__)
        return False
    # An image that had none has nothing to delete: in a bucket each would be a request.
    for name in earlier if image.has_thumbnail else ():
        try:
            private_files().delete(name)
        except (OSError, StorageUnavailable) as error:
            # It is shown no more, and goes with the picture.
            logger.warning("file_not_deleted", error=type(error).__name__)
    return True


def without_thumbnail() -> list[CellImage]:
    """Some classified images without one, from a place that chance picks: one that always fails blocks no other."""
    classified = CellImage.objects.filter(
        # Classified or reviewed, as the index says it.
        ~Q(status=ImageStatus.QUEUED) & ~Q(status=ImageStatus.CLAIMED) & ~Q(status=ImageStatus.FAILED),
        has_thumbnail=False,
        removed_picture=None,
    )
    classified = classified.exclude(pk__in=not_drawable).prefetch_related("predictions")
    start = uuid4()
    some = list(classified.filter(pk__gte=start).order_by("pk")[:SWEEP])
    return some + list(classified.filter(pk__lt=start).order_by("pk")[: SWEEP - len(some)])


def make_missing() -> int:
    """Make thumbnails for some images that were classified without one, for two seconds; returns how many."""
    ends = time.monotonic() + SWEEP_SECONDS
    made = []
    for image in without_thumbnail():
        if time.monotonic() > ends:
            break
        prediction = image.latest_prediction
        box = prediction.box if prediction and len(prediction.leukocytes) < 2 else None
        try:
            with image.file.open("rb") as stored:
                content = stored.read()
        except (OSError, StorageUnavailable) as error:
            # A disk may be back at the next sweep.
            logger.warning("thumbnail_not_made", image=str(image.pk), error=type(error).__name__)
            continue
        try:
            thumbnail = drawn(content, box)
        except FAULTS as error:
            logger.warning("thumbnail_not_made", image=str(image.pk), error=type(error).__name__)
            if len(not_drawable) < MOST_NOT_DRAWABLE:
                not_drawable.add(image.pk)
            continue
        if store(image, thumbnail):
            made.append(image.pk)
    return CellImage.objects.filter(pk__in=made).update(has_thumbnail=True)
