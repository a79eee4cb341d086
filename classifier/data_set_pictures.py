"""Small pictures of the data sets that a model card names, where the data folder is at hand."""

import io
from pathlib import Path

from PIL import Image

from classifier.errors import UploadRejected
from classifier.uploads import opened
from ml.data_folder import data_folder

LONGEST_SIDE = 192
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}


def picture_path(relative: str) -> Path | None:
    """The file of a path within the data folder; None where there is none, or where the path leads out of it."""
    folder = data_folder().resolve()
    try:
        path = (folder / relative).resolve()
        inside = path.is_relative_to(folder) and path.suffix.lower() in SUFFIXES
        return path if inside and path.is_file() else None
    except (OSError, ValueError):
        return None


def thumbnail(path: Path) -> bytes | None:
    """A new JPEG of at most 192 pixels, without any metadata; None for a file that is no picture."""
    try:
        with opened(path.read_bytes()) as picture:
            picture.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
            small = picture.convert("RGB")
            small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            # A converted picture still bears the file's comment and EXIF, and would write them.
            bare = Image.new("RGB", small.size)
            bare.paste(small)
            target = io.BytesIO()
            bare.save(target, "JPEG", quality=85)
    except (OSError, UploadRejected):
        return None
    return target.getvalue()
