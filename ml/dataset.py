"""The pictures to learn from and to be tested on: which there are, what they show, and what they must not be split
from.
"""

import csv
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ml.data_folder import cache_folder
from ml.errors import UnreadableImage, UnusableData
from ml.images import Pixels, decode, shrink
from ml.labels import slug_for_folder
from ml.originals import photograph_of_files, photographs_by_class, test_photographs
from ml.preprocess import Window as CellWindow
from ml.preprocess import choose_window, cut_window, fill_black_corners, pad_to_square
from ml.progress import Progress
from ml.splits import deal, fingerprint, join_groups, near_duplicates

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".heic"}
SCENE_SIDE = 224
SCENE_PER_WINDOW = 1.4  # scenes cut from fields show more than the window, so that training can move and turn it
PARTS = ("train", "validation", "test")
SHARES = {
    "pbc": {"train": 0.76, "validation": 0.12, "test": 0.12},
    "raabin": {"train": 0.70, "validation": 0.15, "test": 0.15},
    "kaggle": {"train": 0.80, "validation": 0.20, "test": 0.0},
}


@dataclass(frozen=True)
class LabelledCell:
    """One picture of a data set. `group` names what it must not be split from, `part` is train, validation or test."""

    path: Path
    label: str
    source: str
    group: str
    part: str = ""


@dataclass(frozen=True)
class Scene:
    """A decoded picture to cut training views from: square RGB uint8, and the side of the serving window in its
    pixels.
    """

    pixels: Pixels
    window: float


def read_class_folders(folder: Path) -> list[tuple[Path, str]]:
    """Return (path, cell type) of every picture in a folder of class folders, sorted.

    Raises UnusableData where the folder is missing or unreadable, has no class folders, or one is empty or unknown.
    """
    try:
        entries = [entry for entry in folder.iterdir() if entry.is_dir()]
        classes = sorted(entry for entry in entries if not entry.name.startswith((".", "__")))
    except OSError as error:
        raise UnusableData(f"The data folder {folder.name!r} can't be read.") from error
    if not classes:
        raise UnusableData(f"The data folder {folder.name!r} has no class folders in it.")
    found: list[tuple[Path, str]] = []
    for entry in classes:
        try:
            label = slug_for_folder(entry.name)
        except ValueError as error:
            raise UnusableData(str(error)) from error
        try:
            pictures = sorted(path for path in entry.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            raise UnusableData(f"The class folder {entry.name!r} can't be read.") from error
        if not pictures:
            raise UnusableData(f"The class folder {entry.name!r} has no pictures in it.")
        found += [(path, label) for path in pictures]
    return found


def slide_of(path: Path) -> str:
    """Return the slide of a Raabin picture: `95-8-10-1_12_3.jpg` -> `95-8-10-1`; basophils have the date of the
    session.
    """
    stem = path.stem
    dated = re.match(r"^(20\d{6})_", stem)
    return dated.group(1) if dated else re.sub(r"_\d+_\d+$", "", stem)


def month_of(slide: str) -> str:
    """Return the month of a Raabin slide, which is named by its day: `95-8-10-1` -> `95-8`. The slides of basophils,
    each of a date of its own, count as one month.
    """
    return "dated" if re.fullmatch(r"20\d{6}", slide) else "-".join(slide.split("-")[:2])


def product_cells(data: Path) -> list[LabelledCell]:
    """Return every picture of the product's training sources with its group and part. No TEST picture is among them.

    Groups: content duplicates (PBC), slides (Raabin), photographs (Kaggle TRAIN; a file whose photograph is uncertain
    is left out). Groups with near-duplicate content are joined, across sources too. Raabin's slides are dealt month
    by month, so that training sees slides of every month, and no month's imaging is known from the test alone.
    """
    cells = [LabelledCell(path, label, "pbc", f"pbc:{path.stem}") for path, label in read_class_folders(data / "pbc")]
    cells += [
        LabelledCell(path, label, "raabin", f"raabin:{slide_of(path)}")
        for path, label in read_class_folders(data / "raabin")
    ]
    cells += _kaggle_cells(data)
    with ThreadPoolExecutor() as pool:
        progress = Progress("compare", len(cells))
        contents = pool.map(lambda cell: fingerprint(decode(cell.path.read_bytes())), cells)
        prints = np.stack(list(progress.each(contents)))
    # Files of one photograph are alike by nature, and already in one group: only the centred cells are compared.
    single = [index for index, cell in enumerate(cells) if cell.source != "kaggle"]
    pairs = [(single[i], single[j]) for i, j in near_duplicates(prints[single])]
    groups = join_groups([cell.group for cell in cells], pairs)
    cells = [replace(cell, group=group) for cell, group in zip(cells, groups, strict=True)]
    part_of: dict[str, str] = {}
    strata: dict[tuple[str, str], list[LabelledCell]] = {}
    for cell in cells:
        month = month_of(slide_of(cell.path)) if cell.source == "raabin" else ""
        strata.setdefault((cell.source, month), []).append(cell)
    for (source, _), own in strata.items():
        parts = deal([cell.group for cell in own], [cell.label for cell in own], SHARES[source])
        for cell, part in zip(own, parts, strict=True):
            part_of.setdefault(cell.group, part)
    return [replace(cell, part=part_of[cell.group]) for cell in cells]


def _kaggle_cells(data: Path) -> list[LabelledCell]:
    pictures = read_class_folders(data / "kaggle-blood-cells" / "TRAIN")
    photograph = photographs_of_train(pictures, data / "bccd")
    kept_for_test = {None, *test_photographs(data / "kaggle-blood-cells").values()}
    return [
        LabelledCell(path, label, "kaggle", f"kaggle:{photograph[path]}")
        for path, label in pictures
        if photograph[path] not in kept_for_test
    ]


def photographs_of_train(pictures: Sequence[tuple[Path, str]], bccd: Path) -> dict[Path, str | None]:
    """The photograph of each Kaggle TRAIN file; kept in the cache, since finding it takes minutes."""
    cache = cache_folder() / "kaggle-train-originals.json"
    keys = {path: f"{path.parent.name}/{path.name}" for path, _ in pictures}
    if cache.exists():
        known: dict[str, str | None] = json.loads(cache.read_text())
        if set(keys.values()) <= set(known):
            return {path: known[key] for path, key in keys.items()}
    candidates = photographs_by_class(bccd)
    found: dict[Path, str | None] = {}
    for label in sorted({label for _, label in pictures}):
        found |= photograph_of_files([path for path, own in pictures if own == label], candidates[label])
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps({keys[path]: name for path, name in found.items()}, indent=0))
    return found


def load_scene(path: Path) -> Scene:
    """Decode a picture and cut what training needs of it. Raises UnreadableImage."""
    image = decode(path.read_bytes())
    window, found, _ = choose_window(image)
    if found == "single_cell":
        square = shrink(pad_to_square(fill_black_corners(image)), SCENE_SIDE)
        return Scene(square, float(square.shape[0]))
    wide = CellWindow(window.x, window.y, window.side * SCENE_PER_WINDOW)
    square = shrink(cut_window(fill_black_corners(image), wide), SCENE_SIDE)
    return Scene(square, square.shape[0] / SCENE_PER_WINDOW)


def load_scenes(paths: Sequence[Path]) -> list[Scene | None]:
    """Load many scenes in threads; None for a picture that can't be read."""

    def load(path: Path) -> Scene | None:
        try:
            return load_scene(path)
        except UnreadableImage:
            return None

    with ThreadPoolExecutor() as pool:
        return list(Progress("decode", len(paths)).each(pool.map(load, paths)))


def write_manifest(cells: Sequence[LabelledCell], data: Path, target: Path) -> str:
    """Write one line a picture (path within the data folder, SHA-256, label, source, group, part); return the file's
    SHA-256.
    """
    with target.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "sha256", "label", "source", "group", "split"])
        for cell in cells:
            digest = hashlib.sha256(cell.path.read_bytes()).hexdigest()
            table.writerow(
                [cell.path.relative_to(data).as_posix(), digest, cell.label, cell.source, cell.group, cell.part]
            )
    return hashlib.sha256(target.read_bytes()).hexdigest()


def read_manifest(packed: Path, data: Path) -> list[LabelledCell]:
    """Return the pictures of a bundle's packed manifest with the part that each had when it was trained.

    Raises UnusableData where one of them is not in the data folder.
    """
    with gzip.open(packed, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [LabelledCell(data / row["path"], row["label"], row["source"], row["group"], row["split"]) for row in rows]
    if not all(cell.path.is_file() for cell in cells):
        raise UnusableData("The data folder lacks pictures that this model was trained on.")
    return cells
