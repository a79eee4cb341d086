"""The pictures of the seed's recipe: whole frames of the Kaggle folders TRAIN and TEST."""

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.data_folder import data_folder
from ml.dataset import photographs_of_train, read_class_folders
from ml.errors import UnreadableImage, UnusableData
from ml.images import Pixels, decode
from ml.originals import photographs_by_class, test_photographs
from ml.progress import Progress, say
from ml.splits import deal

_KAGGLE_NAME = re.compile(r"_\d+_\d+\.jpe?g")
_REASONS = {
    "unreadable": "could not be read as a picture",
    "too_small": "is smaller than 32 pixels on a side",
    "too_large": "has more than 40 megapixels",
}

Labelled = list[tuple[Path, str]]


@dataclass(frozen=True)
class SeedPictures:
    """The files of a run with their cell types.

    `classes` are in alphabetical order, as the seed's model answers. `split` says what validation is kept apart by:
    `photograph` or `file`. `left_out` counts files of TRAIN whose photograph is uncertain or also behind TEST.
    `originals` maps TEST files to their photographs, where they are known.
    """

    classes: tuple[str, ...]
    training: Labelled
    validation: Labelled
    test: Labelled
    split: str
    left_out: int
    originals: dict[Path, str]

    def indices(self, pictures: Labelled) -> NDArray[np.int64]:
        """The class index of each picture, int64 (n,)."""
        return np.array([self.classes.index(label) for _, label in pictures], np.int64)


def find_parts(data: Path) -> tuple[Path, Path]:
    """Return the folders TRAIN and TEST of a data folder or of an unpacked `dataset2-master`, up to four levels deep.

    Raises UnusableData where there are none.
    """
    for pattern in ("kaggle-blood-cells/TRAIN", "TRAIN", *("*/" * depth + "TRAIN" for depth in range(1, 5))):
        for train in sorted(data.glob(pattern)):
            if train.is_dir() and (train.parent / "TEST").is_dir():
                return train, train.parent / "TEST"
    raise UnusableData(f"The folder {data.name!r} holds no folders TRAIN and TEST.")


def read_pictures(data: Path, validation_share: float, most_per_class: int | None = None) -> SeedPictures:
    """Return the pictures under `data`, TRAIN split in two without dividing a photograph where that can be known.

    `most_per_class` takes only so many of each class and folder, evenly spread. Raises UnusableData for folders that
    can't be used.
    """
    train, test = find_parts(data)
    pictures, kept_for_test = read_class_folders(train), read_class_folders(test)
    classes = tuple(sorted({label for _, label in pictures}))
    if len(classes) < 2:
        raise UnusableData("The folder TRAIN holds one class only; a model needs at least two to tell apart.")
    unknown = sorted({label for _, label in kept_for_test} - set(classes))
    if unknown:
        raise UnusableData(f"The folder TEST holds the class {unknown[0]!r}, which TRAIN does not.")
    if most_per_class is not None:
        pictures, kept_for_test = (_spread(part, most_per_class) for part in (pictures, kept_for_test))
    photographs = _photographs_behind(pictures, train.parent)
    split = "photograph" if photographs else "file"
    groups = photographs or {path: str(path) for path, _ in pictures}
    usable = [(path, label) for path, label in pictures if path in groups]
    shares = {"training": 1 - validation_share, "validation": validation_share}
    parts = deal([groups[path] for path, _ in usable], [label for _, label in usable], shares)
    dealt = {part: [picture for picture, own in zip(usable, parts, strict=True) if own == part] for part in shares}
    for part, own in dealt.items():
        missing = sorted(set(classes) - {label for _, label in own})
        if missing:
            raise UnusableData(f"There are too few pictures of the class {missing[0]!r} in TRAIN for a {part} share.")
    return SeedPictures(
        classes,
        dealt["training"],
        dealt["validation"],
        kept_for_test,
        split,
        len(pictures) - len(usable),
        _originals(test),
    )


def _spread(pictures: Labelled, most_per_class: int) -> Labelled:
    of_class: dict[str, Labelled] = {}
    for path, label in pictures:
        of_class.setdefault(label, []).append((path, label))
    chosen = []
    for own in of_class.values():
        places = np.linspace(0, len(own) - 1, min(most_per_class, len(own))).round().astype(int)
        chosen += [own[place] for place in places]
    return chosen


def _photographs_behind(pictures: Labelled, kaggle: Path) -> dict[Path, str] | None:
    """The photograph of each file that may be trained on; None where the photographs can't be known."""
    candidates = (kaggle.parent / "bccd", kaggle / "bccd", data_folder() / "bccd")
    bccd = next((folder for folder in candidates if (folder / "labels.csv").is_file()), None)
    is_kaggle = all(_KAGGLE_NAME.fullmatch(path.name) for path, _ in pictures)
    if bccd is None or not is_kaggle or {label for _, label in pictures} - set(photographs_by_class(bccd)):
        say("the photographs behind TRAIN are not known: its validation share is drawn by file and will flatter")
        return None
    behind_test = set(_photographs_of_test(kaggle).values())
    found = photographs_of_train(pictures, bccd)
    certain = {path: name for path, name in found.items() if name is not None and name not in behind_test}
    if len(certain) < len(pictures) / 2:
        say("most files of TRAIN fit no photograph: its validation share is drawn by file and will flatter")
        return None
    return certain


def _originals(test: Path) -> dict[Path, str]:
    return {test / name: photograph for name, photograph in _photographs_of_test(test.parent).items()}


def _photographs_of_test(kaggle: Path) -> dict[str, str]:
    if not (kaggle / "test_originals.csv").is_file():
        return {}
    try:
        return test_photographs(kaggle)
    except KeyError as error:
        raise UnusableData("The file 'test_originals.csv' lacks a column: class, file and original.") from error


def whole_frame(image: Pixels, size: int) -> Pixels:
    """Squeeze an RGB picture, uint8 (h, w, 3), to (size, size, 3) as `flow_from_directory` does: nearest neighbour,
    whatever the aspect.
    """
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def load_frames(pictures: Sequence[tuple[Path, str]], size: int, what: str = "decode") -> NDArray[np.uint8]:
    """Decode pictures to whole frames, uint8 (n, size, size, 3).

    Raises UnusableData that names the first picture which can't be read, and how many there are.
    """
    frames = np.empty((len(pictures), size, size, 3), np.uint8)

    def load(index: int) -> str | None:
        try:
            frames[index] = whole_frame(decode(pictures[index][0].read_bytes()), size)
        except UnreadableImage as error:
            return _REASONS[error.code]
        except OSError:
            return "could not be opened"
        return None

    with ThreadPoolExecutor() as pool:
        refusals = list(Progress(what, len(pictures)).each(pool.map(load, range(len(pictures)))))
    counts = Counter(reason is not None for reason in refusals)
    for (path, _), reason in zip(pictures, refusals, strict=True):
        if reason is not None:
            others = f", and {counts[True] - 1} more are unusable" if counts[True] > 1 else ""
            raise UnusableData(f"The picture {path.parent.name}/{path.name} {reason}{others}; remove or replace it.")
    return frames
