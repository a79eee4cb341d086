"""Where the training and test images lie: the one place that knows it."""

import os
from pathlib import Path

WEIGHTS = Path("weights") / "mobilenet_v2_1.0_160_no_top.weights.h5"


def data_folder() -> Path:
    """Return the folder named by `HEMATOVISION_DATA`, by default `../shared/data` beside the checkout."""
    named = os.environ.get("HEMATOVISION_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[1].parent / "shared" / "data"


def cache_folder() -> Path:
    """Return the folder for what can be made again (`var/cache` in the checkout, git-ignored)."""
    return Path(__file__).resolve().parents[1] / "var" / "cache"
