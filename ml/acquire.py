"""Getting the public data sets onto the disk, in the layout that training expects."""

import lzma
import shutil
import stat
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ml.errors import UnusableData
from ml.labels import slug_for_folder
from ml.progress import Progress, say
from ml.staging import staged

KAGGLE_FOLDER = "kaggle-blood-cells"
BCCD_FOLDER = "bccd"
MOST_BYTES = 2 * 1024**3  # unpacked; the Kaggle set takes 0.2 GB
MOST_FILES = 100_000
_BCCD = "https://codeload.github.com/Shenggan/BCCD_Dataset/zip/refs/heads/master"
_MOST_DOWNLOADED = 200 * 1024**2
_PARTS = ("TRAIN", "TEST", "TEST_SIMPLE")
_PICTURES = {".jpg", ".jpeg", ".png"}

Place = Callable[[PurePosixPath], Path | None]


def unpack_kaggle(archive: Path, out: Path) -> dict[str, int]:
    """Unpack the Kaggle "blood-cells" ZIP to `out/kaggle-blood-cells/{TRAIN,TEST,TEST_SIMPLE}/<CLASS>/`, and the
    photographs of its `dataset-master`, where it has them, to `out/bccd`.

    The folders are found however deeply nested. All or nothing; files that are there already are replaced. Returns the
    number of files of each part. Raises UnusableData for a file that is no usable ZIP or holds no such folders, and
    OSError where nothing can be written.
    """
    try:
        opened = zipfile.ZipFile(archive)
    except FileNotFoundError as error:
        raise UnusableData(
            f"The file {archive.name!r} was not found; download it from Kaggle (blood-cells) first."
        ) from error
    except zipfile.BadZipFile as error:
        raise UnusableData(
            f"The file {archive.name!r} could not be unpacked: it is no ZIP file, or its end is missing."
        ) from error
    except OSError as error:
        raise UnusableData(f"The file {archive.name!r} could not be unpacked: it can't be opened.") from error
    with opened:
        entries = _chosen(opened, _place_of_kaggle)
        if not any(path.parts[0] == KAGGLE_FOLDER for path in entries):
            raise UnusableData(
                f"The file {archive.name!r} does not hold the `dataset2-master` folders TRAIN, TEST and TEST_SIMPLE."
            )
        return _unpack(opened, entries, out)


def fetch_bccd(out: Path) -> dict[str, int]:
    """Download the BCCD photographs and boxes (MIT licence) to `out/bccd`. Raises UnusableData where the internet
    can't be reached, and OSError where nothing can be written.
    """
    say("downloading BCCD")
    with tempfile.TemporaryFile() as file:
        try:
            with urllib.request.urlopen(_BCCD, timeout=60) as answer:
                while block := answer.read(1024**2):
                    file.write(block)
                    if file.tell() > _MOST_DOWNLOADED:
                        raise UnusableData("The BCCD set is far larger than it should be; it was not unpacked.")
            opened = zipfile.ZipFile(file)
        except (urllib.error.URLError, TimeoutError, ConnectionError, zipfile.BadZipFile) as error:
            raise UnusableData("The BCCD set could not be downloaded; is the internet reachable?") from error
        with opened:
            return _unpack(opened, _chosen(opened, _place_of_photographs), out)


def _place_of_kaggle(path: PurePosixPath) -> Path | None:
    """Where a member of the Kaggle ZIP belongs; None for what is not wanted."""
    if any(name.startswith("dataset2") for name in path.parts):
        if len(path.parts) < 4 or path.parts[-3] not in _PARTS or path.suffix.lower() not in _PICTURES:
            return None
        try:
            slug_for_folder(path.parts[-2])
        except ValueError:
            return None
        return Path(KAGGLE_FOLDER, *path.parts[-3:])
    return _place_of_photographs(path) if any(name.startswith("dataset-master") for name in path.parts) else None


def _place_of_photographs(path: PurePosixPath) -> Path | None:
    if path.name == "labels.csv":
        return Path(BCCD_FOLDER, path.name)
    wanted = {"JPEGImages": _PICTURES, "Annotations": {".xml"}}.get(path.parent.name, set())
    return Path(BCCD_FOLDER, *path.parts[-2:]) if path.suffix.lower() in wanted else None


def _chosen(opened: zipfile.ZipFile, place: Place) -> dict[Path, zipfile.ZipInfo]:
    """The wanted members by their place. At most three names of a member's path are used, none of them `..` or hidden,
    so that nothing can leave the folder. Raises UnusableData for members that can't be trusted.
    """
    chosen: dict[Path, zipfile.ZipInfo] = {}
    links = 0
    for entry in opened.infolist():
        path = PurePosixPath(entry.filename)
        is_odd = "\\" in entry.filename or any(name.startswith((".", "__MACOSX")) for name in path.parts)
        target = None if is_odd or entry.is_dir() or not path.parts else place(path)
        if target is None:
            continue
        if stat.S_ISLNK(entry.external_attr >> 16):
            links += 1
            continue
        if entry.flag_bits & 0x1:
            raise UnusableData("This ZIP could not be unpacked: it is encrypted.")
        if target in chosen and (chosen[target].CRC, chosen[target].file_size) != (entry.CRC, entry.file_size):
            raise UnusableData(f"This ZIP could not be unpacked: it holds two different files {target.as_posix()!r}.")
        chosen[target] = entry
        if len(chosen) > MOST_FILES:
            raise UnusableData(f"This ZIP could not be unpacked: it holds more than {MOST_FILES:,} files.")
    if links:
        say(f"left out {links} links")
    if sum(entry.file_size for entry in chosen.values()) > MOST_BYTES:
        raise UnusableData(f"This ZIP could not be unpacked: it would take more than {MOST_BYTES // 1024**3} GiB.")
    return chosen


def _unpack(opened: zipfile.ZipFile, entries: dict[Path, zipfile.ZipInfo], out: Path) -> dict[str, int]:
    progress = Progress("unpack", len(entries))
    with staged(out) as folder:
        for target, entry in progress.each(entries.items()):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            try:
                # No member gives more bytes than it declares, and their sum was checked.
                with opened.open(entry) as source, (folder / target).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
                raise UnusableData(
                    f"This ZIP could not be unpacked: its member {target.as_posix()!r} is damaged."
                ) from error
    return dict(Counter(target.parts[1] for target in entries))
