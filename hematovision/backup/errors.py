"""Why a backup or a restore did not happen."""

from classifier.errors import HematoVisionError


class BackupRefused(HematoVisionError):
    """The sentence that the operator reads. Nothing was left half-done."""

    def __init__(self, message: str) -> None:
        super().__init__("backup_refused", message)


class RestoreUnfinished(HematoVisionError):
    """All rows and files are restored; the sentence says what failed after that, and what is left to do."""

    def __init__(self, message: str) -> None:
        super().__init__("restore_unfinished", message)
