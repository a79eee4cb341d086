"""The features of some training cells, kept in a bundle: what `adapt` must not forget while it learns a microscope."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.errors import ModelUnavailable

SOURCE_FEATURES_FILE = "source_features.npz"
PER_CLASS = 120

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SourceFeatures:
    """Pooled features (n, 1280) of n training cells, their `labels` (n,) as class indices, and their `sources`."""

    pooled: Floats
    labels: NDArray[np.int64]
    sources: list[str]


def choose(
    pooled: Floats, labels: NDArray[np.int64], sources: Sequence[str], per_class: int = PER_CLASS, seed: int = 0
) -> SourceFeatures:
    """Return at most `per_class` cells of each type, drawn from its sources as evenly as they allow."""
    names = np.asarray(sources)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)
    for label, name in {*zip(labels.tolist(), names.tolist(), strict=True)}:
        members = shuffled[(labels[shuffled] == label) & (names[shuffled] == name)]
        turn[members] = np.arange(len(members))
    # The first of every source, then the second of every source, and so on.
    in_turn = shuffled[np.argsort(turn[shuffled], kind="stable")]
    chosen = [index for label in np.unique(labels) for index in in_turn[labels[in_turn] == label][:per_class].tolist()]
    return SourceFeatures(pooled[chosen], labels[chosen], [str(names[index]) for index in chosen])


def save(features: SourceFeatures, bundle: Path) -> Path:
    """Write the features into a bundle's folder with half the precision, and return the file."""
    target = bundle / SOURCE_FEATURES_FILE
    np.savez_compressed(
        target,
        allow_pickle=False,
        pooled=features.pooled.astype(np.float16),
        labels=features.labels.astype(np.uint8),
        sources=np.asarray(features.sources, np.str_),
    )
    return target


def load(bundle: Path) -> SourceFeatures | None:
    """Read the features of a bundle; None where it holds none. Raises ModelUnavailable for a file that is broken."""
    file = bundle / SOURCE_FEATURES_FILE
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return SourceFeatures(
                arrays["pooled"].astype(np.float32), arrays["labels"].astype(np.int64), arrays["sources"].tolist()
            )
    except (OSError, ValueError, KeyError) as error:
        message = "The features of the training cells in this bundle can't be read."
        raise ModelUnavailable("model_incompatible", message) from error
