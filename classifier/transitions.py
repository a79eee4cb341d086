"""The one table of moves between the states of a cell image. Nobody else assigns `status`."""

from typing import Any

from accounts.built_statements import BuiltUpdate
from classifier.errors import InvalidTransition
from classifier.models import CellImage, ImageStatus
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
    return images.filter(status=source).update(**moved(source, target), **changes)


def built_move(
    images: CellImageQuerySet, *, source: ImageStatus, target: ImageStatus, returning: bool = False, **changes: Any
) -> BuiltUpdate[CellImage]:
    """The same move as a statement that is built once, for the pipeline."""
    return BuiltUpdate(images.filter(status=source), returning=returning, **moved(source, target), **changes)


def moved(source: ImageStatus, target: ImageStatus) -> dict[str, Any]:
    """What a move changes in any case. Raises InvalidTransition for a pair that the table does not have."""
    if (source, target) not in TRANSITIONS:
        raise InvalidTransition("invalid_transition", f"An image can't go from {source.label} to {target.label}.")
    return {"status": target, **LEFT_BEHIND.get(source, {})}
