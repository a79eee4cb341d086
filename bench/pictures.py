"""The pictures that are measured with: real, and every one different."""

import hashlib
import random
from pathlib import Path

from ml.data_folder import data_folder
from ml.dataset import IMAGE_SUFFIXES

FOLDERS = ("pbc", "raabin", "kaggle-blood-cells/TRAIN")


class NoPictures(Exception):
    """The sentence that says what is missing."""


def real_pictures(count: int) -> list[Path]:
    """`count` files of different content, mixed from all data sets, always the same ones. Raises NoPictures."""
    files = sorted(
        path
        for folder in FOLDERS
        for path in (data_folder() / folder).rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
    )
    random.Random(7).shuffle(files)
    chosen: dict[str, Path] = {}
    for file in files:
        if len(chosen) == count:
            break
        chosen.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), file)
    if len(chosen) < count:
        message = (
            f"{count} different pictures are needed and {len(chosen)} were found; HEMATOVISION_DATA names a folder."
        )
        raise NoPictures(message)
    return list(chosen.values())
