"""Where originals lie: private, never behind a URL of their own."""

from typing import Any, NoReturn

from django.core.files.storage import FileSystemStorage
from django.utils.deconstruct import deconstructible


@deconstructible(path="classifier.storage.PrivateStorage")
class PrivateStorage(FileSystemStorage):
    """Files leave only through a view that asks `visible_to(user)`, so asking for a link is a mistake."""

    def url(self, name: Any) -> NoReturn:
        message = "Originals have no URL: they are served by a view that asks who is looking."
        raise NotImplementedError(message)
