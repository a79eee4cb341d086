"""The ways in which the model refuses. Messages are sentences for users."""


class UnreadableImage(Exception):
    """The bytes are no picture that can be classified. Permanent: trying again does not help.

    `code` is a stable slug (`unreadable`, `too_small`, `too_large`), `message` a sentence for the user.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ModelUnavailable(Exception):
    """There is no usable model bundle. Transient: images wait until the bundle is mended.

    `code` is `model_missing`, `model_altered` or `model_incompatible`, `message` a sentence for the user.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class UnusableData(ValueError):
    """A folder of pictures can't be used for training or evaluation; the message is a sentence that says why."""
