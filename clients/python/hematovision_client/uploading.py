"""What becomes of each of many files, and how far they are."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hematovision_client.answers import UploadedImage
from hematovision_client.problem import Problem


@dataclass(frozen=True)
class Upload:
    """The outcome of one file: `image`, or the `problem` why there is none.

    `duplicate`: the case has the same picture already, and `image` is that one. `sent` is False for files that were
    not tried, because what stopped the one before (no access, no server) would have stopped them too.
    """

    path: Path
    image: UploadedImage | None = None
    problem: Problem | None = None
    duplicate: bool = False
    sent: bool = True


@dataclass(frozen=True)
class Progress:
    """How far an upload is. `rate` is in bytes a second; it and `seconds_left` are None until something is sent."""

    done: int
    total: int
    bytes_done: int
    bytes_total: int
    rate: float | None
    seconds_left: float | None


ProgressCallback = Callable[[Progress], None]


class Meter:
    """Counts what is done, and foretells when the rest will be, by the mean rate so far."""

    def __init__(self, total: int, bytes_total: int) -> None:
        self.total, self.bytes_total = total, bytes_total
        self.started = time.monotonic()

    def at(self, done: int, bytes_done: int) -> Progress:
        seconds = time.monotonic() - self.started
        rate = bytes_done / seconds if bytes_done and seconds > 0 else None
        # A file that grew meanwhile is no reason for less than nothing left.
        left = max(0.0, (self.bytes_total - bytes_done) / rate) if rate else None
        return Progress(done, self.total, bytes_done, self.bytes_total, rate, left)


def size_if_any(path: Path) -> int:
    """The size in bytes; 0 for a file that can't be read, which has its own outcome later."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def stops_the_rest(problem: Problem) -> bool:
    """Whether every other file would meet the same: no access, or no server. A conflict may be this picture's own."""
    if problem.status == 0:
        return problem.code != "unreadable_file"
    return problem.status in (401, 403, 404, 429, 502, 503, 504)
