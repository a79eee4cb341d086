"""Where originals lie: private, never behind a URL of their own."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NoReturn

from django.core.files.storage import FileSystemStorage, Storage
from django.db import InterfaceError, OperationalError, transaction
from django.utils.deconstruct import deconstructible

from classifier.errors import NO_ROOM, storage_full

# The files that were stored since a transaction began which may take their rows back.
stored_since: ContextVar[list[tuple["PrivateStorage", str]] | None] = ContextVar("stored_since", default=None)


@contextmanager
def unstored_on_failure() -> Iterator[None]:
    """Remove what is stored within it where it fails: put it round a transaction, and no file stays without its row.

    Where the database is gone the rows may be there all the same, so the files stay: one too many harms nobody.
    """
    stored: list[tuple[PrivateStorage, str]] = []
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


@deconstructible(path="classifier.storage.PrivateStorage")
class PrivateStorage(FileSystemStorage):
    """Files leave only through a view that asks `visible_to(user)`, so asking for a link is a mistake."""

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
        if (noted := stored_since.get()) is not None:
            noted.append((self, stored))
        return stored

    def url(self, name: Any) -> NoReturn:
        message = "Originals have no URL: they are served by a view that asks who is looking."
        raise NotImplementedError(message)
