"""Why a backup or a restore did not happen."""

from classifier.errors import HematoVisionError


class BackupRefused(HematoVisionError):
    """The sentence that the operator reads. Nothing was left half-done."""

    def __init__(self, message: str) -> None:
        super().__init__("backup_refused", message)
