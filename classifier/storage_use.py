"""How much room the pictures take, and how much is left on the disk that they lie on, if it is one."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.conf import settings

from classifier.kept_totals import images_by_laboratory
from classifier.storage import private_files

KEPT_SECONDS = 60.0


@dataclass(frozen=True)
class Originals:
    """The pictures of a laboratory as they are stored: how many, and their bytes in all."""

    images: int
    bytes: int


@dataclass(frozen=True)
class Disk:
    """The disk of MEDIA_ROOT, in bytes."""

    free: int
    total: int

    @property
    def used(self) -> int:
        return self.total - self.free

    @property
    def is_nearly_full(self) -> bool:
        fraction, size = settings.DISK_FREE_WARNING
        return bool(self.free < fraction * self.total or self.free < size)


# By folder: when it was looked at, and what was seen.
looked: dict[Path, tuple[float, Disk | None]] = {}


def originals_of(laboratory_id: UUID) -> Originals:
    """The pictures of the laboratory, void ones too."""
    return Originals(*images_by_laboratory().get(str(laboratory_id), (0, 0)))


def disk() -> Disk | None:
    """The disk that pictures are stored on, looked at once a minute; None where the system does not tell."""
    folder = private_files().folder
    if folder is None:
        return None
    now = time.monotonic()
    known = looked.get(folder)
    if known is None or now - known[0] >= KEPT_SECONDS:
        known = (now, look_at(folder))
        looked[folder] = known
    return known[1]


def look() -> Disk | None:
    """The same, looked at now."""
    folder = private_files().folder
    return None if folder is None else look_at(folder)


def look_at(folder: Path) -> Disk | None:
    # The folder is made with the first picture; until then the nearest one above tells.
    for place in (folder, *folder.parents):
        try:
            usage = shutil.disk_usage(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return Disk(free=usage.free, total=usage.total)
    return None


def size_in_words(number: int) -> str:
    """Bytes for people: `0 bytes`, `812 KB`, `1.4 GB`, `41 GB` (in powers of 1,000, as disks are sold)."""
    if number < 1000:
        return "1 byte" if number == 1 else f"{number} bytes"
    size = float(number)
    for unit in ("KB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
    return f"{size / 1000:.1f} PB"
