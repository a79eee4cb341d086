"""A form with one file, sent piece by piece: no file is ever in memory as a whole."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hematovision_client.problem import Problem

PIECE = 64 * 1024


class FileForm:
    """A multipart/form-data body that can be sent more than once. Raises Problem (unreadable_file)."""

    def __init__(
        self,
        name: str,
        path: Path,
        fields: Mapping[str, str] | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self.path = path
        self.on_bytes = on_bytes
        self.size = size_of(path)
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        texts = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in (fields or {}).items()
        )
        file = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{quoted(path.name)}"\r\n'
        self.head = f"{''.join(texts)}{file}Content-Type: application/octet-stream\r\n\r\n".encode("utf-8", "replace")
        self.tail = f"\r\n--{boundary}--\r\n".encode()
        self.length = len(self.head) + self.size + len(self.tail)

    def pieces(self) -> Iterator[bytes]:
        """The body from its start; `on_bytes` hears how much of the file is sent."""
        yield self.head
        sent = 0
        for piece in pieces_of(self.path):
            sent += len(piece)
            if sent > self.size:
                break
            yield piece
            if self.on_bytes:
                self.on_bytes(sent)
        if sent != self.size:
            raise Problem(0, "unreadable_file", "The file changed while it was being sent. Send it again.")
        yield self.tail


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(error) from error


def pieces_of(path: Path) -> Iterator[bytes]:
    """A file's content. Its faults become a Problem at once, so that nobody takes them for the connection's."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(error) from error
    with file:
        while True:
            try:
                piece = file.read(PIECE)
            except OSError as error:
                raise unreadable(error) from error
            if not piece:
                return
            yield piece


def unreadable(error: OSError) -> Problem:
    return Problem(0, "unreadable_file", f"The file can't be read: {error.strerror or 'input/output error'}.")


def quoted(name: str) -> str:
    """A file name between quotation marks, as browsers write it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
