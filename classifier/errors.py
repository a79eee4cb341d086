"""What can go wrong for a user: a stable code, a sentence, and the HTTP status every door answers with."""

import errno
from typing import Any, ClassVar


class HematoVisionError(Exception):
    """Base of all errors that a user may read. `code` is a stable slug; `message` says what is wrong and what to do.

    `details` are members that a problem document has beside them, as JSON can hold them.
    """

    status: ClassVar[int] = 400
    # After how many seconds it is worth trying again; None where only another request helps.
    retry_after: ClassVar[int | None] = None

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.details = details


class UploadRejected(HematoVisionError):
    """A file was not accepted; nothing of it is kept."""


class UploadTooLarge(UploadRejected):
    status = 413


class UnsupportedFormat(UploadRejected):
    status = 415


class RequestTooLarge(HematoVisionError):
    """A body that is not a file is larger than anything that is expected."""

    status = 413


class InvalidInput(HematoVisionError):
    """A field's value can't be used."""


class NotAllowed(HematoVisionError):
    """The object is visible, the act is not allowed."""

    status = 403


class Conflict(HematoVisionError):
    """The act does not fit the state of things."""

    status = 409


class Gone(HematoVisionError):
    """It was here, and was taken away for good."""

    status = 410


class InvalidTransition(Conflict):
    """A move between two states that the transition table does not have."""


class TooManyTries(HematoVisionError):
    """Something that is guarded against guessing was tried too often."""

    status = 429
    retry_after = 300


class Unavailable(HematoVisionError):
    """Something that the platform needs is missing for now."""

    status = 503
    retry_after = 5


class StorageUnavailable(Unavailable):
    """The object store does not answer, or refuses. No OSError: that is damage to who reads pictures or archives."""

    def __init__(self) -> None:
        super().__init__(
            "storage_unavailable",
            "The place where pictures are kept does not answer at the moment. Nothing was lost; try again in a minute.",
        )


# A full disk, a spent quota, and the largest file that the process may write.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def storage_full() -> Unavailable:
    return Unavailable(
        "storage_full",
        "There is no room left on the server, so nothing of this was kept. Tell your administrator, and send it again "
        "once there is room.",
    )


def database_unavailable() -> Unavailable:
    return Unavailable(
        "database_unavailable", "The database does not answer at the moment. Nothing was lost; try again in a minute."
    )


class TooManyUploads(Unavailable):
    """More pictures arrive at this moment than are looked at together."""

    status = 429
    retry_after = 2


class QueueFull(Unavailable):
    """More waits to be classified than a program may add to."""

    status = 429
    retry_after = 30


# Why an image could not be classified, and what a person can do about it.
FAILURES: dict[str, str] = {
    "unreadable_image": "The stored picture could not be read. Upload the original file again.",
    "stored_file_missing": "The stored picture is missing. Upload it again and tell your administrator.",
    "stored_file_altered": "The stored picture has changed since it was uploaded, so it was not used. Upload it again "
    "and tell your administrator.",
    "prediction_failed": "The model could not process this picture in three tries. Classify it by hand.",
    "worker_lost": "The worker stopped three times while it held this picture. Classify it by hand and tell your "
    "administrator.",
}
