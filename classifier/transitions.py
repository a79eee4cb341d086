"""The one table of moves between the states of a cell image. Nobody else assigns `status`."""

from typing import Any

from classifier.errors import InvalidTransition
from classifier.models import ImageStatus
from classifier.querysets import CellImageQuerySet

TRANSITIONS: frozenset[tuple[ImageStatus, ImageStatus]] = frozenset(
    {
        (ImageStatus.QUEUED, ImageStatus.CLAIMED),
        (ImageStatus.CLAIMED, ImageStatus.CLASSIFIED),
        (ImageStatus.CLAIMED, ImageStatus.QUEUED),
        (ImageStatus.CLAIMED, ImageStatus.FAILED),
        (ImageStatus.FAILED, ImageStatus.QUEUED),
        (ImageStatus.CLASSIFIED, ImageStatus.QUEUED),
        (ImageStatus.CLASSIFIED, ImageStatus.REVIEWED),
        (ImageStatus.FAILED, ImageStatus.REVIEWED),
        (ImageStatus.REVIEWED, ImageStatus.CLASSIFIED),
        (ImageStatus.REVIEWED, ImageStatus.FAILED),
    }
)
# What an image no longer has once it leaves a state.
LEFT_BEHIND: dict[ImageStatus, dict[str, Any]] = {
    ImageStatus.CLAIMED: {"claim_token": None, "claim_expires_at": None},
    ImageStatus.REVIEWED: {"current_review": None},
}


def move(images: CellImageQuerySet, *, source: ImageStatus, target: ImageStatus, **changes: Any) -> int:
    """Move those of `images` that are in `source` to `target`, in one guarded statement.

    Returns how many moved: the count is the verdict, because somebody else may have been faster.
    Raises InvalidTransition for a pair that the table does not have.
    """
    if (source, target) not in TRANSITIONS:
        raise InvalidTransition("invalid_transition", f"An image can't go from {source.label} to {target.label}.")
    return images.filter(status=source).update(status=target, **LEFT_BEHIND.get(source, {}), **changes)
