"""How far a long command has come: a line every few seconds on stderr, with rate and time left."""

import time
from typing import TextIO

from classifier.storage_use import size_in_words

EVERY_SECONDS = 5.0


class Progress:
    """Counts one stage of a command; `total` is how many things there are, where that is known."""

    def __init__(self, out: TextIO, what: str, total: int | None = None) -> None:
        self.out, self.what, self.total = out, what, total
        self.done = self.bytes = 0
        self.began = self.told = time.monotonic()

    def step(self, size: int = 0) -> None:
        self.done += 1
        self.bytes += size
        now = time.monotonic()
        if now - self.told >= EVERY_SECONDS:
            self.told = now
            self.out.write(self.line(now) + "\n")

    def line(self, now: float) -> str:
        """`files: 1,200 of 17,092, 35 MB a second, about 2 min left`."""
        seconds = max(now - self.began, 0.001)
        parts = [f"{self.what}: {self.done:,}" + (f" of {self.total:,}" if self.total else "")]
        if self.bytes:
            parts.append(f"{size_in_words(round(self.bytes / seconds))} a second")
        if self.total and self.done:
            parts.append(f"about {words_of(seconds / self.done * (self.total - self.done))} left")
        return ", ".join(parts)

    def end(self) -> None:
        seconds = time.monotonic() - self.began
        size = f", {size_in_words(self.bytes)}" if self.bytes else ""
        self.out.write(f"{self.what}: {self.done:,}{size}, {seconds:.1f} s\n")


def words_of(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
