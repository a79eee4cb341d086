"""Progress on stderr: how far, how fast, how long still."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def say(line: str) -> None:
    """Write one line to stderr at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Progress:
    """Counts finished pieces of work and says so on stderr, at most once a second."""

    def __init__(self, what: str, total: int, every_seconds: float = 1.0) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self._every = every_seconds
        self._start = self._said = time.monotonic()

    def each(self, pieces: Iterable[T]) -> Iterator[T]:
        """Pass the pieces on, counting each."""
        for piece in pieces:
            yield piece
            self.advance()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more pieces; `note` is added to the line."""
        self.done += count
        now = time.monotonic()
        if now - self._said < self._every and self.done < self.total:
            return
        self._said = now
        rate = self.done / max(now - self._start, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        say(f"{self.what} {self.done}/{self.total}  {rate:.1f}/s  {left:.0f} s left  {note}".rstrip())

    @property
    def rate(self) -> float:
        """Pieces a second since the start."""
        return self.done / max(time.monotonic() - self._start, 1e-9)
