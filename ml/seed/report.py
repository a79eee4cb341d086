"""What a run of the seed's recipe is worth on TEST, in figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import UnusableData
from ml.intervals import clustered, wilson
from ml.seed.pictures import SeedPictures


def figures_on_test(pictures: SeedPictures, answers: NDArray[np.float32]) -> dict[str, Any]:
    """Return the figures of probabilities (n, classes) on the TEST files, all fractions 0..1.

    The interval of `accuracy` is by bootstrap over photographs where they are known (`interval_by`: `photograph`), and
    Wilson's over files otherwise, which is too narrow for augmented copies. `originals` counts photographs that are
    right by the mean probability of their files, None where they are unknown.
    """
    if not np.isfinite(answers).all():
        raise UnusableData("The training went astray (the answers are no numbers); try it again with another --seed.")
    truth, said = pictures.indices(pictures.test), answers.argmax(axis=1)
    right = truth == said
    paths = [path for path, _ in pictures.test]
    known = pictures.originals
    if known:
        # A file whose photograph is uncertain counts as one of its own.
        low, high = clustered(right, [known.get(path, str(path)) for path in paths])
    else:
        low, high = wilson(int(right.sum()), len(right))
    return {
        "n": len(truth),
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "interval_by": "photograph" if known else "file",
        "originals": _originals_right(paths, truth, answers, known) if known else None,
        "per_class": _per_class(pictures.classes, truth, said),
        "confusion": confusion(pictures.classes, truth, said),
    }


def confusion(classes: Sequence[str], truth: NDArray[np.int64], said: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Return how often each true class was called each class."""
    return {
        label: {other: int(((truth == row) & (said == column)).sum()) for column, other in enumerate(classes)}
        for row, label in enumerate(classes)
    }


def _per_class(
    classes: Sequence[str], truth: NDArray[np.int64], said: NDArray[np.int64]
) -> dict[str, dict[str, float | int | None]]:
    figures: dict[str, dict[str, float | int | None]] = {}
    for index, label in enumerate(classes):
        n, hits = int((truth == index).sum()), int(((truth == index) & (said == index)).sum())
        claimed = int((said == index).sum())
        low, high = wilson(hits, n)
        figures[label] = {
            "n": n,
            "sensitivity": hits / n if n else None,
            "sensitivity_low": low,
            "sensitivity_high": high,
            "ppv": hits / claimed if claimed else None,
        }
    return figures


def _originals_right(
    paths: Sequence[Path], truth: NDArray[np.int64], answers: NDArray[np.float32], known: dict[Path, str]
) -> dict[str, int]:
    sums: dict[str, NDArray[np.float64]] = {}
    labels: dict[str, int] = {}
    for path, label, own in zip(paths, truth, answers, strict=True):
        if path in known:
            sums[known[path]] = sums.get(known[path], np.zeros(len(own))) + own
            labels[known[path]] = int(label)
    return {"n": len(sums), "right": sum(int(total.argmax()) == labels[name] for name, total in sums.items())}
