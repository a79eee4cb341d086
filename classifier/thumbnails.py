"""Small pictures for the gallery: the found cell with what is round it, or the whole picture.

A thumbnail lies beside the originals in the private storage, under a name made of ids only. It is a convenience: where
there is none, the pages show the original.
"""

import io
import os
import struct
import time
import warnings
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog
from PIL import Image

from classifier.models import CellImage, ImageStatus

if TYPE_CHECKING:
    from ml.predictor import PreparedCell

logger = structlog.get_logger(__name__)
SIDE = 192
QUALITY = 86
# Whatever is drawn otherwise one day gets another number: browsers then ask for it anew.
DRAWING = 1
# Pixels of a picture that is decoded only once.
LARGE = 4_000_000
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
    """`originals/<laboratory>/<xx>/<id>.jpg` -> `thumbnails/<laboratory>/<xx>/<id>.webp`."""
    original = PurePosixPath(str(image.file.name))
    return str(PurePosixPath("thumbnails", *original.parts[1:]).with_suffix(".webp"))


def etag_of(image: CellImage) -> str:
    """Changes with the picture, with the cell that was found in it, and with the way in which it is drawn."""
    found_at = image.classified_at.timestamp() if image.classified_at else 0
    return f'"{image.stored_sha256[:24]}-{found_at:.0f}-{DRAWING}"'


def encoded(picture: Image.Image) -> bytes:
    """WebP bytes of the picture, its longest side at most SIDE pixels."""
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=2)
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


def of_prepared(content: bytes, cell: "PreparedCell") -> bytes | None:
    """The thumbnail of a stored picture that was prepared for the model: the square that the model saw.

    A field of several cells is shown whole. None where it can't be made.
    """
    is_field = len(cell.leukocytes) > 1
    try:
        if cell.width * cell.height > LARGE and not is_field:
            # Smaller than it could be; decoding such a picture once more would cost too much.
            return encoded(Image.fromarray(cell.pixels))
        return drawn(content, None if is_field else cell.box)
    except FAULTS as error:
        logger.warning("thumbnail_not_made", error=type(error).__name__)
        return None


def store(image: CellImage, thumbnail: bytes) -> bool:
    """Put the thumbnail where it belongs, in place of an earlier one; returns whether that went well."""
    target = image.file.storage.path(path_of(image))
    fresh = f"{target}.{uuid4().hex}"
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        with open(fresh, "xb", opener=_private) as file:
            file.write(thumbnail)
        os.replace(fresh, target)
    except OSError as error:
        logger.warning("thumbnail_not_stored", image=str(image.pk), error=type(error).__name__)
        return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def without_thumbnail() -> list[CellImage]:
    """Some classified images without one, from a place that chance picks: one that always fails blocks no other."""
    classified = CellImage.objects.filter(
        has_thumbnail=False, status__in=[ImageStatus.CLASSIFIED, ImageStatus.REVIEWED], removed_picture=None
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
        except OSError as error:
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
