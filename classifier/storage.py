"""Where originals lie: private, never behind a URL of their own. In a folder here, in a bucket in `bucket_storage`."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, cast
from uuid import uuid4

from django.conf import settings
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.db import InterfaceError, OperationalError, transaction
from django.utils.deconstruct import deconstructible

from classifier.errors import NO_ROOM, storage_full

# The files that were stored since a transaction began which may take their rows back.
stored_since: ContextVar[list[tuple["PrivateFiles", str]] | None] = ContextVar("stored_since", default=None)


@contextmanager
def unstored_on_failure() -> Iterator[None]:
    """Remove what is stored within it where it fails: put it round a transaction, and no file stays without its row.

    Where the database is gone the rows may be there all the same, so the files stay: one too many harms nobody.
    """
    stored: list[tuple[PrivateFiles, str]] = []
    token = stored_since.set(stored)
    keep = False
    try:
        yield
        keep = True
    except (OperationalError, InterfaceError):
        keep = True
        raise
    finally:
        stored_since.reset(token)
        for storage, name in [] if keep else stored:
            storage.delete(name)


def delete_on_commit(storage: Storage, name: str) -> None:
    """Delete a file that rows no longer name, once no transaction can take those rows back any more."""

    def delete() -> None:
        storage.delete(name)

    transaction.on_commit(delete, robust=True)


class StoredFile(NamedTuple):
    """A file as a listing tells of it: its name in the storage, its bytes, when it was written (seconds, UTC)."""

    name: str
    size: int
    modified_at: float


class PrivateFiles(Storage):
    """What our storages do beside Django's verbs. Files leave only through a view that asks `visible_to(user)`."""

    # The folder on this machine that the files lie in; None where they lie elsewhere.
    folder: ClassVar[Any] = None

    def url(self, name: Any) -> NoReturn:
        message = "Originals have no URL: they are served by a view that asks who is looking."
        raise NotImplementedError(message)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file in place of an earlier one: who reads it sees all of the one or all of the other."""
        raise NotImplementedError

    def files(self, under: str = "") -> Iterator[StoredFile]:
        """The files whose names begin with `under`, in the order of their names."""
        raise NotImplementedError

    def obstacle(self) -> str | None:
        """The code of what keeps a picture from being stored now, or None."""
        raise NotImplementedError

    def works(self) -> bool:
        """After a StorageUnavailable: whether the storage works all the same, so that it was about one file only."""
        return False

    def note(self, name: str) -> None:
        """Remember what was stored for the transaction round it, which may take its row back."""
        if (noted := stored_since.get()) is not None:
            noted.append((self, name))


def private_files() -> PrivateFiles:
    """The storage of originals, thumbnails, archives and exports that the settings name."""
    return cast(PrivateFiles, storages["default"])


@deconstructible(path="classifier.storage.PrivateStorage")
class PrivateStorage(PrivateFiles, FileSystemStorage):
    """The files in the folder MEDIA_ROOT."""

    @property
    def folder(self) -> Path:
        return Path(self.location)

    def _save(self, name: str, content: Any) -> str:
        try:
            stored: str = super()._save(name, content)  # type: ignore[misc]  # Django's own hook for storages
        except OSError as error:
            # A part of a file is of no use, and takes room where there is none.
            with suppress(OSError):
                self.delete(name)
            if error.errno in NO_ROOM:
                raise storage_full() from error
            raise
        self.note(stored)
        return stored

    def replace(self, name: str, content: bytes) -> None:
        target = self.path(name)
        fresh = f"{target}.{uuid4().hex}"
        os.makedirs(os.path.dirname(target), mode=settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS, exist_ok=True)
        with open(fresh, "xb", opener=_private) as file:
            file.write(content)
        os.replace(fresh, target)

    def files(self, under: str = "") -> Iterator[StoredFile]:
        start = self.folder / under
        inside = sorted(start.rglob("*")) if start.is_dir() else sorted(start.parent.glob(f"{start.name}*"))
        for path in inside:
            # A file may go while it is looked at.
            with suppress(FileNotFoundError):
                if path.is_file():
                    told = path.stat()
                    yield StoredFile(path.relative_to(self.folder).as_posix(), told.st_size, told.st_mtime)

    def obstacle(self) -> str | None:
        """By writing one page: permissions alone tell nothing of a read-only disk."""
        try:
            self.folder.mkdir(mode=settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS, parents=True, exist_ok=True)
            # A file without a name: even a process that is killed here leaves nothing behind.
            with tempfile.TemporaryFile(dir=self.folder) as probe:
                probe.write(bytes(4096))
        except OSError:
            return "media_not_writable"
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, settings.FILE_UPLOAD_PERMISSIONS or 0o600)
