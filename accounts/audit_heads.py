"""The heads of the chain of seals, in a file beside the database: with it a cut tail of the trail is found.

One JSON object a line: `number`, `mac` and `sealed_at` of a seal. Lines are appended and never changed.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import structlog

from accounts.models import AuditSeal

logger = structlog.get_logger(__name__)
# More than a line ever has.
LAST_BYTES = 4096
AT_ONCE = 1000


@dataclass(frozen=True)
class Head:
    number: int
    mac: str


def append_heads(path: Path) -> None:
    """Append the heads that the file lacks. A file that can't be written is logged: the seals themselves are stored."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:
            # Two sealers must not both write what the file lacks.
            fcntl.flock(file, fcntl.LOCK_EX)
            append_missing(file)
    except OSError as error:
        logger.error("audit_heads_not_written", error=type(error).__name__)


def append_missing(file: IO[bytes]) -> None:
    last, is_cut = last_head(file)
    seals = AuditSeal.objects.order_by("number").values_list("number", "mac", "sealed_at")
    if last is not None:
        newest = AuditSeal.objects.order_by("-number").values_list("number", "mac").first()
        if newest == (last.number, last.mac):
            return
        if seals.filter(number=last.number, mac=last.mac).exists():
            seals = seals.filter(number__gt=last.number)
        else:
            # The database was set back, or the file is another's. It keeps both stories, and `--heads` tells of it.
            logger.error("audit_heads_do_not_fit", number=last.number)
            seals = seals.filter(number=newest[0]) if newest else seals.none()
    if is_cut:
        # A crash while the last line was written: it stays, as half a line that says nothing.
        file.write(b"\n")
    # By number, and no iterator: outside a transaction PostgreSQL would make all rows at once.
    written = -1
    while some := list(seals.filter(number__gt=written)[:AT_ONCE]):
        file.write(b"".join(line_of(*seal) for seal in some))
        written = some[-1][0]
    os.fsync(file.fileno())


def line_of(number: int, mac: str, sealed_at: datetime) -> bytes:
    return json.dumps({"number": number, "mac": mac, "sealed_at": sealed_at.isoformat()}).encode() + b"\n"


def last_head(file: IO[bytes]) -> tuple[Head | None, bool]:
    """The last whole head of the file, and whether the file ends in the middle of a line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LAST_BYTES))
    end = file.read()
    heads = [head for line in end.split(b"\n") if (head := head_of(line))]
    return (heads[-1] if heads else None), bool(end) and not end.endswith(b"\n")


def head_of(line: bytes) -> Head | None:
    try:
        told: Any = json.loads(line)
        number, mac = told["number"], told["mac"]
    except (ValueError, KeyError, TypeError):
        return None
    return Head(number, mac) if isinstance(number, int) and isinstance(mac, str) else None


def heads_in(file: IO[bytes], size: int) -> Iterator[Head]:
    """The heads in the first `size` bytes of a file. A line that a crash has cut says nothing and is left out."""
    for line in file:
        size -= len(line)
        if size < 0:
            return
        if head := head_of(line):
            yield head
