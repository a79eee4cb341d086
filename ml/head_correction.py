"""A head for another microscope: the old one, and a linear correction of its logits learnt from few labelled cells.

The correction is a softmax regression on principal directions of the pooled features, with the old head's logits as its
offset and a ridge that draws it to nothing: few labels change little. Cells of the training sources take part with a
small weight, since a head that sees five types of a new microscope alone soon never says the others. Where a bundle
holds none, only the types that were labelled are weighed against each other, and the rest keep their distance.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.heat_map import Head
from ml.predictor import softmax
from ml.progress import Progress
from ml.source_features import SourceFeatures
from ml.splits import deal
from ml.views import ALL, ONE, as_served

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

SOURCE_WEIGHT = 0.05
_RIDGE = 3e-4
_CONSTANT_RIDGE = 3e-5
_DIRECTIONS = 256
_ROUNDS = 60
_NEVER = -1e3  # the logit of a type that takes no part
FOLDS = 5
REPEATS = 4


@dataclass(frozen=True)
class LocalCells:
    """Labelled cells of one microscope.

    `pooled` (n, views, 1280) are the features of each in several views, the first as it lies (`ml/views.py`), `zoomed`
    (n, scales, 1280) those at other scales, for fitting alone; `for_gate` (n, views, d) is what the gate judges by;
    `labels` (n,) are class indices; `groups` name what must not be on both sides of a split.
    """

    pooled: Floats
    zoomed: Floats
    for_gate: Floats
    labels: NDArray[np.int64]
    groups: list[str]

    def chosen(self, indices: NDArray[np.int64]) -> "LocalCells":
        """Some of the cells."""
        groups = [self.groups[index] for index in indices]
        return LocalCells(
            self.pooled[indices], self.zoomed[indices], self.for_gate[indices], self.labels[indices], groups
        )


@dataclass(frozen=True)
class Directions:
    """Principal directions of standardised features: (pooled - `mean`) @ `projection`, the strongest of spread 1."""

    mean: Doubles
    projection: Doubles

    @classmethod
    def of(cls, pooled: Floats) -> "Directions":
        """Fit to features (n, d)."""
        mean, spread = pooled.mean(axis=0, dtype=np.float64), np.sqrt(pooled.var(axis=0, dtype=np.float64) + 1e-4)
        standard = (pooled - mean) / spread
        _, strengths, axes = np.linalg.svd(standard, full_matrices=False)
        chosen = axes[:_DIRECTIONS].T * np.sqrt(len(pooled)) / max(float(strengths[0]), 1e-6)
        return cls(mean, chosen / spread[:, None])

    def __call__(self, pooled: Floats) -> Doubles:
        """Return features (n, d) in the directions, (n, k)."""
        return (pooled - self.mean) @ self.projection


def directions_for(cells: LocalCells, source: SourceFeatures | None) -> Directions:
    """Return the directions to correct a head in: those of the training cells, where there are any."""
    return Directions.of(source.pooled if source else cells.pooled.reshape(-1, cells.pooled.shape[2]))


def corrected_head(head: Head, cells: LocalCells, source: SourceFeatures | None, directions: Directions) -> Head:
    """Return the head with the correction that the labelled cells ask for."""
    every_view = np.concatenate([cells.pooled, cells.zoomed], axis=1)
    pooled = every_view.reshape(-1, every_view.shape[2])
    labels = np.repeat(cells.labels, every_view.shape[1])
    weights = np.full(len(labels), 1 / len(labels))
    logits = head.logits(pooled).astype(np.float64)
    if source:
        n = len(source.labels)
        weights = np.append(weights * (1 - SOURCE_WEIGHT), np.full(n, SOURCE_WEIGHT / n))
        logits = np.concatenate([logits, head.logits(source.pooled)])
        pooled, labels = np.concatenate([pooled, source.pooled]), np.concatenate([labels, source.labels])
    else:
        logits[:, np.setdiff1d(np.arange(logits.shape[1]), labels)] = _NEVER
    solution = fit_correction(directions(pooled), labels, weights, logits)
    linear = directions.projection @ solution[:-1]
    return with_correction(head, linear, solution[-1] - directions.mean @ linear)


def fit_correction(
    inputs: Doubles, labels: NDArray[np.int64], weights: Doubles, logits: Doubles, rounds: int = _ROUNDS
) -> Doubles:
    """Return what to add to `logits` (n, classes): weights (k + 1, classes) of inputs (n, k), the constant's last.

    Least weighted log loss with a ridge, by steps under a fixed bound of the curvature (Böhning 1992, Ann Inst Statist
    Math 44:197) with Nesterov's momentum. The cells' `weights` (n,) sum to 1.
    """
    design = np.column_stack([inputs, np.ones(len(inputs))])
    ridge = np.append(np.full(inputs.shape[1], _RIDGE), _CONSTANT_RIDGE)
    inverse = np.linalg.inv((design.T * weights) @ design / 2 + np.diag(ridge))
    # Half the width is twice the speed, and more digits than the steps need.
    thin, bound = design.astype(np.float32), inverse.astype(np.float32)
    share, drawn = weights.astype(np.float32)[:, None], ridge.astype(np.float32)[:, None]
    offset, truth = logits.astype(np.float32), np.eye(logits.shape[1], dtype=np.float32)[labels]
    solution = ahead = np.zeros((thin.shape[1], offset.shape[1]), np.float32)
    momentum = 1.0
    for _ in range(rounds):
        step = ahead - bound @ (thin.T @ ((softmax(thin @ ahead + offset) - truth) * share) + drawn * ahead)
        grown = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = step + np.float32((momentum - 1) / grown) * (step - solution)
        solution, momentum = step, grown
    return solution.astype(np.float64)


def with_correction(head: Head, linear: Doubles, constant: Doubles) -> Head:
    """Return a head whose logits are the head's plus pooled @ `linear` (d, classes) + `constant` (classes,).

    It keeps the form of two dense layers, exactly: a number is relu(itself) - relu(-itself).
    """
    both = np.concatenate([np.eye(len(constant)), -np.eye(len(constant))])
    return Head(
        w1=np.concatenate([head.w1, linear, -linear], axis=1, dtype=np.float32, casting="same_kind"),
        b1=np.concatenate([head.b1, constant, -constant], dtype=np.float32, casting="same_kind"),
        w2=np.concatenate([head.w2, both], dtype=np.float32, casting="same_kind"),
        b2=head.b2,
    )


def cross_validated_logits(
    head: Head, cells: LocalCells, source: SourceFeatures | None, directions: Directions
) -> dict[int, Floats]:
    """Return logits (repeats, n, classes) of each cell by corrected heads that saw neither it nor its group: for cells
    that are served in one view, and in eight.
    """
    logits = {views: np.zeros((REPEATS, len(cells.labels), len(head.b2)), np.float32) for views in (ONE, ALL)}
    shares = {str(fold): 1 / FOLDS for fold in range(FOLDS)}
    progress = Progress("cross-validate", REPEATS)
    for repeat in range(REPEATS):
        folds = np.array(deal(cells.groups, [str(label) for label in cells.labels], shares, seed=repeat))
        for fold in np.unique(folds):
            held_out = np.flatnonzero(folds == fold)
            fitted = corrected_head(head, cells.chosen(np.flatnonzero(folds != fold)), source, directions)
            for views, own in logits.items():
                own[repeat, held_out] = fitted.logits(as_served(cells.pooled[held_out], views))
        progress.advance()
    return logits
