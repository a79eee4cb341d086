"""What a run of the seed's recipe does, apart from the code that does it: readable without TensorFlow."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ml.data_folder import WEIGHTS, data_folder
from ml.errors import UnusableData

SMALLEST_SIZE, LARGEST_SIZE = 32, 512

Weights = Path | Literal["imagenet"] | None
"""A file of Keras weights without the top, the download of Keras Applications, or none: drawn at random."""


@dataclass(frozen=True)
class SeedRecipe:
    """The seed's settings as they were; the flags are the remedies of its troubleshooting list.

    `size` is the side of the squeezed frames in pixels. `unfreeze` trains the last blocks for as many epochs again, at
    a tenth of the rate. `validation_share` is the fraction of TRAIN that is only looked at.
    """

    size: int = 150
    batch: int = 64
    epochs: int = 5
    more_augmentation: bool = False
    unfreeze: bool = False
    cache_features: bool = False
    validation_share: float = 0.2
    seed: int = 7

    def check(self) -> None:
        """Raise UnusableData for settings that can't be had together."""
        if not SMALLEST_SIZE <= self.size <= LARGEST_SIZE:
            raise UnusableData(f"--size must lie between {SMALLEST_SIZE} and {LARGEST_SIZE}.")
        if self.unfreeze and self.cache_features:
            raise UnusableData("--unfreeze changes the features, so it can't be combined with --cache-features.")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready values."""
        return asdict(self)


def find_weights(given: Path | None, data: Path) -> Path | Literal["imagenet"]:
    """Return the weights to start from: the file that was given, that of a data folder, else the download.

    Raises UnusableData where a given file is not there.
    """
    if given is not None and not given.is_file():
        raise UnusableData(f"The weights file {given.name!r} was not found.")
    candidates = [given] if given else [data / WEIGHTS, data_folder() / WEIGHTS]
    return next((path for path in candidates if path.is_file()), "imagenet")
