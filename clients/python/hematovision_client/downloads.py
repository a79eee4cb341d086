"""Files that are there as a whole or not at all."""

import os
import tempfile
from pathlib import Path
from types import TracebackType

from hematovision_client.problem import Problem


class NewFile:
    """A file that takes its name when the block ends well, and vanishes otherwise. Raises Problem (not_written)."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> "NewFile":
        try:
            handle, self.name = tempfile.mkstemp(dir=self.target.parent, prefix=".download-")
        except OSError as error:
            raise not_written(error) from error
        self.file = os.fdopen(handle, "wb")
        return self

    def write(self, piece: bytes) -> None:
        try:
            self.file.write(piece)
        except OSError as error:
            raise not_written(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.file.close()
            if error is None:
                os.replace(self.name, self.target)
        except OSError as fault:
            raise not_written(fault) from fault
        finally:
            Path(self.name).unlink(missing_ok=True)


def not_written(error: OSError) -> Problem:
    return Problem(0, "not_written", f"The file can't be written: {error.strerror or 'input/output error'}.")
