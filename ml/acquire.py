"""Getting the public data sets onto the disk, in the layout that training expects."""

import io
import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from ml.errors import UnusableData
from ml.progress import say

KAGGLE_FOLDER = "kaggle-blood-cells"
_BCCD = "https://codeload.github.com/Shenggan/BCCD_Dataset/zip/refs/heads/master"
_PARTS = ("TRAIN", "TEST", "TEST_SIMPLE")
_PICTURES = {".jpg", ".jpeg", ".png"}


def unpack_kaggle(archive: Path, out: Path) -> dict[str, int]:
    """Unpack the Kaggle "blood-cells" ZIP to `out/kaggle-blood-cells/{TRAIN,TEST,TEST_SIMPLE}/<CLASS>/`.

    The folders are found wherever `dataset2-master` lies in the archive, however deeply nested. Returns the number
    of pictures of each part. Raises UnusableData for a file that is no ZIP or holds no such folders.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return _unpack_parts(opened, out / KAGGLE_FOLDER)
    except FileNotFoundError as error:
        raise UnusableData(
            f"The file {archive.name!r} was not found; download it from Kaggle (blood-cells) first."
        ) from error
    except (zipfile.BadZipFile, OSError) as error:
        raise UnusableData(f"The file {archive.name!r} could not be unpacked.") from error


def _unpack_parts(opened: zipfile.ZipFile, target: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in opened.infolist():
        path = PurePosixPath(entry.filename)
        part = next((name for name in path.parts[:-2] if name in _PARTS), None)
        is_second_set = any(name.startswith("dataset2") for name in path.parts)
        is_picture = path.suffix.lower() in _PICTURES and not entry.is_dir() and ".." not in path.parts
        if part is None or not is_second_set or not is_picture:
            continue
        # Only the last two names are used, so no member can leave the target folder.
        folder = target / part / path.parts[-2]
        folder.mkdir(parents=True, exist_ok=True)
        with opened.open(entry) as source, (folder / path.name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
        counts[part] = counts.get(part, 0) + 1
    if not counts:
        raise UnusableData("This ZIP does not hold the `dataset2-master` folders TRAIN, TEST and TEST_SIMPLE.")
    return counts


def fetch_bccd(out: Path) -> dict[str, int]:
    """Download the BCCD photographs and boxes (MIT licence) to `out/bccd`. Raises UnusableData where the internet
    can't be reached.
    """
    say("downloading BCCD")
    try:
        with urllib.request.urlopen(_BCCD, timeout=60) as answer:
            data = answer.read()
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            return _unpack_bccd(opened, out / "bccd")
    except (urllib.error.URLError, zipfile.BadZipFile, OSError) as error:
        raise UnusableData("The BCCD set could not be downloaded; is the internet reachable?") from error


def _unpack_bccd(opened: zipfile.ZipFile, target: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in opened.infolist():
        path = PurePosixPath(entry.filename)
        if entry.is_dir() or len(path.parts) < 2 or path.parts[-2] not in ("JPEGImages", "Annotations"):
            continue
        folder = target / path.parts[-2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(opened.read(entry))
        counts[folder.name] = counts.get(folder.name, 0) + 1
    return counts
