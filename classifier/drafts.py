"""Files that are written a slice at a time, by whichever worker is free, until they are finished.

In a folder that all workers share such a file simply grows where it lies. A bucket can't append: there each slice is
an object of its own, `<name>.part-<start>-<end>`, every worker keeps a copy on its own disk and fetches the parts that
others wrote, and the one that writes the last slice stores the whole and removes the parts.

A name is used by one writer after the other, never by two: who takes over a lost claim begins under another one.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.core.files import File

from classifier.storage import PrivateFiles, private_files

PART = ".part-"
# A copy that nobody has touched for so long is of no use; whoever needs it once more fetches it.
COPY_SECONDS = 3600
# Of a part: so much is held in memory at once.
PART_BYTES = 16 * 1024**2
# What stores that speak S3 take in one request, and so the largest file that can be stored whole.
MOST_BYTES = 5 * 1024**3


class DraftTooLarge(Exception):
    """No store takes a file of this size in one piece."""


def whole_of(name: str) -> str:
    """The name of the file that a part belongs to; any other name as it is."""
    return name.partition(PART)[0]


def path_of(name: str) -> Path:
    """Where this worker writes the file."""
    folder = private_files().folder
    return Path(private_files().path(name)) if folder else settings.VAR_DIR / "drafts" / os.path.basename(name)


def begin(name: str) -> None:
    path = path_of(name)
    path.parent.mkdir(mode=settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS, parents=True, exist_ok=True)
    path.touch(mode=settings.FILE_UPLOAD_PERMISSIONS)


def begin_with(name: str, before: str, size: int) -> None:
    """Begin a file with the first `size` bytes of another one, which was brought here before."""
    begin(name)
    shutil.copyfile(path_of(before), path_of(name))
    os.truncate(path_of(name), size)
    keep(name, 0)


def bring(name: str, size: int) -> bool:
    """Have the first `size` bytes here, and nothing behind them; False where that much is not there any more."""
    files = private_files()
    path = path_of(name)
    if files.folder is None:
        forget_old_copies()
        begin(name)
        fetch_parts(files, name, path, size)
    if not path.exists() or path.stat().st_size < size:
        return False
    os.truncate(path, size)
    return True


def fetch_parts(files: PrivateFiles, name: str, path: Path, size: int) -> None:
    """Append what other workers wrote, as far as it goes on where the copy ends."""
    with path.open("ab") as copy:
        for part, start, end in list(parts_of(files, name)):
            if start >= size:
                # Of a slice that does not count: the next one writes it again.
                files.delete(part)
            elif start == copy.tell():
                with files.open(part) as stored:
                    shutil.copyfileobj(stored, copy, 1024**2)
                if copy.tell() != end:
                    return


def parts_of(files: PrivateFiles, name: str) -> Iterator[tuple[str, int, int]]:
    """The parts in the order of their bytes: name, start, end."""
    for found in files.files(name + PART):
        start, _, end = found.name.rpartition(PART)[2].partition("-")
        yield found.name, int(start), int(end)


def keep(name: str, start: int) -> int:
    """Let other workers go on from here: keep what was written from `start` on. Returns the size of the file.

    Raises DraftTooLarge, as `store` would in the end.
    """
    files, path = private_files(), path_of(name)
    size = path.stat().st_size
    if files.folder is None:
        require_storable(size)
        with path.open("rb") as copy:
            copy.seek(start)
            while start < size:
                end = min(start + PART_BYTES, size)
                files.replace(f"{name}{PART}{start:015d}-{end:015d}", copy.read(end - start))
                start = end
    return size


def store(name: str) -> None:
    """The file is finished: put it where it is fetched from. Raises DraftTooLarge."""
    files, path = private_files(), path_of(name)
    if files.folder is not None:
        return
    require_storable(path.stat().st_size)
    files.delete(name)
    with path.open("rb") as copy:
        try:
            files.save(name, File(copy))
        except OSError as error:
            # The store's own bound, or that of a proxy before it, is lower.
            if error.errno == errno.EFBIG:
                raise DraftTooLarge from error
            raise


def require_storable(size: int) -> None:
    if size > MOST_BYTES:
        raise DraftTooLarge


def tidy(name: str) -> None:
    """Remove what a stored file was put together from."""
    if private_files().folder is None:
        discard_parts(name)
        forget_copy(name)


def discard(name: str) -> None:
    """Remove the file, finished or not."""
    private_files().delete(name)
    tidy(name)


def discard_parts(name: str) -> None:
    files = private_files()
    for part, _, _ in list(parts_of(files, name)):
        files.delete(part)


def forget_copy(name: str) -> None:
    """Remove what is only here, on this worker's disk. What was kept lies in the store."""
    if private_files().folder is None:
        path_of(name).unlink(missing_ok=True)


def forget_old_copies() -> None:
    """Remove copies that nobody went on with here: another worker did, or the export is over."""
    if private_files().folder is None:
        for path in (settings.VAR_DIR / "drafts").glob("*"):
            # Another process of this machine may remove it, too.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - COPY_SECONDS:
                    path.unlink()
