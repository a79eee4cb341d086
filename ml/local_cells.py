"""The labelled pictures of a microscope for `adapt`: read, prepared as serving does, turned, grouped by content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.dataset import read_class_folders
from ml.errors import UnreadableImage, UnusableData
from ml.evaluate import label_for_model
from ml.images import Pixels, decode
from ml.preprocess import prepare_cell
from ml.splits import fingerprint, join_groups, near_duplicates
from ml.views import turned


@dataclass(frozen=True)
class LabelledPictures:
    """n different pictures: the SHA-256 of each file, class indices (n,), and the group that it must not be split from.

    `views` is uint8 (n, 8, S, S, 3): the prepared picture, and it turned and mirrored.
    """

    digests: list[str]
    labels: NDArray[np.int64]
    groups: list[str]
    views: NDArray[np.uint8]


def read_pictures(folder: Path, known: Sequence[str]) -> LabelledPictures:
    """Read the pictures in class folders; the same file twice counts once. Labels are indices into `known`.

    Raises UnusableData: for a folder, a type or a picture that can't be used, or one picture in two class folders.
    """
    found: dict[str, int] = {}
    prepared: list[Pixels] = []
    broken: list[Path] = []
    for path, name in read_class_folders(folder):
        label = list(known).index(label_for_model(name, known))
        try:
            content = path.read_bytes()
            pixels = prepare_cell(decode(content)).pixels
        except (OSError, UnreadableImage):
            broken.append(path)
            continue
        digest = hashlib.sha256(content).hexdigest()
        if found.setdefault(digest, label) != label:
            raise UnusableData(f"The picture {path.name!r} lies in two class folders; leave it in the right one.")
        if len(found) > len(prepared):
            prepared.append(pixels)
    if broken:
        first = f"{broken[0].parent.name}/{broken[0].name}"
        raise UnusableData(f"{len(broken)} of the pictures can't be read, the first is {first!r}; take them out.")
    views = np.stack([turned(pixels) for pixels in prepared])
    return LabelledPictures(list(found), np.array(list(found.values()), np.int64), content_groups(views), views)


def content_groups(views: NDArray[np.uint8]) -> list[str]:
    """Return the group of each picture of `views` (n, 8, S, S, 3): near-duplicates, turned ones too, share one."""
    n = len(views)
    prints = np.stack([np.stack([fingerprint(view) for view in own]) for own in views])
    pairs: list[tuple[int, int]] = []
    for turn in range(views.shape[1]):
        both = np.concatenate([prints[:, 0], prints[:, turn]])
        pairs += [(i % n, j % n) for i, j in near_duplicates(both)]
    return join_groups([f"{index:06d}" for index in range(n)], pairs)
