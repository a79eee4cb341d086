"""What a kind of export says of itself: how its filters are read, how much there is, how a slice is written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier.models import Export


@dataclass(frozen=True)
class Slice:
    """What one slice added: `rows`, and where the next one begins, as JSON can hold it; None when all is written.

    The last one may take rows out again: then `rows` is negative.
    """

    rows: int
    position: Any


def any_size(export: Export) -> None:
    """A table may be as long as it is."""


@dataclass(frozen=True)
class ExportWriter:
    """How one kind of export is written.

    `clean` turns what was posted into filters as they are kept (ids, codes and dates) or raises InvalidInput.
    `total` counts the rows. `write(export, path, ends)` appends to the file `path`, from `export.position` on (None:
    from the beginning), until `time.monotonic()` is past `ends`, and at least one row. The file has been cut back to
    what counts, so a slice that was lost half-way is written again. `require_fits` raises InvalidInput where one file
    can't hold all of it. `extension` is the file's: csv or zip.
    """

    extension: str
    clean: Callable[[Mapping[str, Sequence[str]]], dict[str, list[str]]]
    total: Callable[[Export], int]
    write: Callable[[Export, Path, float], Slice]
    require_fits: Callable[[Export], None] = any_size
