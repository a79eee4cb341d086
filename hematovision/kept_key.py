"""Keys that an embedded instance makes for itself, once, and keeps beside its data."""

import os
import secrets
from pathlib import Path


def kept_key(path: Path) -> str:
    """The key in the file, made where there is none yet; several processes may start at the same time."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}-{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(50))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text().strip()
