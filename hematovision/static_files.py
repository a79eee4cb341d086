"""Static files under names that hold their hash, so that browsers may keep them for ever."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.apps import StaticFilesConfig
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """Hashes what scripts import from each other as well."""

    support_js_module_import_aggregation = True


def collect_static_files(stamp: Path) -> bool:
    """Collect, hash and compress the static files where that is not done yet; `stamp` remembers for what it was.

    Returns whether it had to be done: it takes as long as all other steps of a start together.
    """
    # Before anything is collected: a source that changes meanwhile is collected again by the next start.
    wanted = state_of_sources()
    if stamp.exists() and stamp.read_text() == f"{wanted}\n{state_of_collected()}":
        return False
    stamp.unlink(missing_ok=True)
    call_command("collectstatic", verbosity=0, interactive=False)
    stamp.write_text(f"{wanted}\n{state_of_collected()}")
    return True


def state_of_sources() -> str:
    """A hash of what is collected from, and of who collects."""
    state = hashlib.sha256()
    for package in ("django", "whitenoise"):
        state.update(version(package).encode())
    for finder in get_finders():
        for path, storage in finder.list(StaticFilesConfig.ignore_patterns):
            with storage.open(path) as source:
                state.update(f"{path}\0{hashlib.file_digest(source, 'sha256').hexdigest()}\n".encode())
    return state.hexdigest()


def state_of_collected() -> str:
    """A hash of what lies collected: names and sizes."""
    state = hashlib.sha256()
    root = Path(settings.STATIC_ROOT)
    for file in sorted(root.rglob("*")):
        if file.is_file():
            state.update(f"{file.relative_to(root)}\0{file.stat().st_size}\n".encode())
    return state.hexdigest()
