"""Nothing half-written: files are made in a hidden folder within their own, and moved out when all are whole."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a hidden folder within `folder` to write to; at the end its files move to the same places in `folder`.

    If anything goes wrong, an interruption included, nothing is moved and the hidden folder is removed. Raises OSError.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        yield staging
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            target = folder / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if is_new:
            # Only where it is still empty.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    shutil.rmtree(staging, ignore_errors=True)
