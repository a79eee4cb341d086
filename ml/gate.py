"""Is this like anything the model was trained on? The gate before every answer, with two questions.

Is it a cell at all? A logistic regression in the principal directions of the features tells cells, under every stain
that augmentation can make, from pictures of none (outlier exposure; Hendrycks et al. 2019, ICLR).

Is it from a familiar microscope? Three measures: the strength (length) of the features; seen on the unit sphere, the
Mahalanobis distance to the nearest group of training cells (one cell type of one source; Lee et al. 2018, NeurIPS); and
the residual outside of the principal directions. Each is divided by its usual limit, and the largest counts.

The score joins both: up to 1 is familiar, up to `far` a cell from an unfamiliar microscope, beyond it no cell at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

DIRECTIONS = 128
_SHRINKAGE = 0.1
_TINY = 1e-6
_MOST_LOG_ODDS = 5.0
_RIDGE = 0.01


@dataclass(frozen=True)
class FeatureBank:
    """Where the training cells lie, on the unit sphere of pooled features.

    `mean` (d,), `directions` (d, k), `whitening` (k, k), the `centres` (groups, k) of the groups after whitening, and
    the regression against what is no cell, `refusal` (k + 1,), its constant last.
    """

    mean: Floats
    directions: Floats
    whitening: Floats
    centres: Floats
    refusal: Floats

    def refusal_logits(self, pooled: Floats) -> Floats:
        """Return, for pooled features (n, d), the log odds (n,) that it is no cell."""
        inside = (unit_vectors(pooled) - self.mean) @ self.directions
        return np.asarray(inside @ self.refusal[:-1] + self.refusal[-1], np.float32)

    def distances(self, pooled: Floats) -> tuple[Floats, Floats]:
        """Return, for pooled features (n, d), the distance to the nearest group and the residual, each (n,)."""
        centred = unit_vectors(pooled) - self.mean
        inside = centred @ self.directions
        residual = np.sqrt(np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0))
        white = inside @ self.whitening
        squares = (white**2).sum(axis=1)[:, None] - 2 * white @ self.centres.T + (self.centres**2).sum(axis=1)
        distance = np.sqrt(np.maximum(squares.min(axis=1), 0) / self.directions.shape[1])
        return np.asarray(distance, np.float32), np.asarray(residual, np.float32)


@dataclass(frozen=True)
class UsualLimits:
    """What has score 1: the largest usual `distance` and `residual`, and the least usual `strength` of features."""

    distance: float
    residual: float
    strength: float


@dataclass(frozen=True)
class Gate:
    """The bank with its limits. It is no cell beyond the score `far`, which the log odds reach at `refused_from`."""

    bank: FeatureBank
    limits: UsualLimits
    far: float
    refused_from: float

    def scores(self, pooled: Floats) -> Floats:
        """Return the score, float32 (n,), of pooled features (n, d); at most 1 is familiar."""
        beyond = np.clip(self.bank.refusal_logits(pooled) - self.refused_from, -_MOST_LOG_ODDS, _MOST_LOG_ODDS)
        return np.asarray(np.maximum(self.novelty(pooled), self.far * np.exp(beyond)), np.float32)

    def novelty(self, pooled: Floats) -> Floats:
        """Return how unlike every familiar microscope pooled features (n, d) are, float32 (n,); usual is at most 1."""
        distance, residual = self.bank.distances(pooled)
        strength = np.maximum(np.linalg.norm(pooled, axis=1), _TINY)
        measures = (distance / self.limits.distance, residual / self.limits.residual, self.limits.strength / strength)
        return np.asarray(np.maximum.reduce(measures), np.float32)


def unit_vectors(pooled: Floats) -> Floats:
    """Return pooled features (n, d) with length 1."""
    return np.asarray(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), _TINY), np.float32)


def fit_bank(
    pooled: Floats, groups: Sequence[str], restained: Floats, junk: Floats, directions: int = DIRECTIONS
) -> FeatureBank:
    """Fit the bank to pooled features (n, d) and their groups; `restained` are cells too, `junk` (m, d) are none."""
    units = unit_vectors(pooled)
    mean = units.mean(axis=0)
    centred = (units - mean).astype(np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    chosen = vectors[:, ::-1][:, : min(directions, len(pooled) - 1)]
    inside = centred @ chosen
    names = sorted(set(groups))
    index = np.array([names.index(group) for group in groups])
    means = np.stack([inside[index == i].mean(axis=0) for i in range(len(names))])
    within = inside - means[index]
    covariance = within.T @ within / max(len(within) - len(names), 1)
    mean_variance = np.trace(covariance) / len(covariance)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * mean_variance * np.eye(len(covariance))
    values, axes = np.linalg.eigh(covariance)
    whitening = axes / np.sqrt(values)
    cells = (unit_vectors(np.concatenate([pooled, restained])) - mean) @ chosen
    refusal = fit_logistic(cells, (unit_vectors(junk) - mean) @ chosen)
    arrays = (mean, chosen, whitening, means @ whitening, refusal)
    return FeatureBank(*(np.asarray(array, np.float32) for array in arrays))


def fit_logistic(negatives: Doubles, positives: Doubles, rounds: int = 60) -> Doubles:
    """Return weights (k + 1,), constant last, of a ridge logistic regression, both sides weighted alike (Newton)."""
    inputs = np.concatenate([negatives, positives])
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0) + _TINY
    design = np.column_stack([(inputs - centre) / spread, np.ones(len(inputs))])
    truth = np.arange(len(inputs)) >= len(negatives)
    weight = np.where(truth, len(negatives), len(positives)) * 2 / len(inputs)
    solution = np.zeros(design.shape[1])
    for _ in range(rounds):
        chance = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        curvature = (design.T * (weight * chance * (1 - chance) + 1e-4)) @ design / len(inputs)
        slope = design.T @ (weight * (chance - truth)) / len(inputs) + _RIDGE * solution
        solution -= np.linalg.solve(curvature + _RIDGE * np.eye(len(solution)), slope)
    scaled = solution[:-1] / spread
    return np.append(scaled, solution[-1] - centre @ scaled)


def usual_limits(bank: FeatureBank, pooled: Floats, sources: Sequence[str], accepted: float) -> UsualLimits:
    """Return the limits within which at least `accepted` of the cells of *every* source lie."""
    distance, residual = bank.distances(pooled)
    strength = np.linalg.norm(pooled, axis=1)
    names = np.array(sources)
    own = [names == name for name in sorted(set(sources))]
    # All three must hold at once, so each gets a third of what may be refused.
    each = 1 - (1 - accepted) / 3
    return UsualLimits(
        distance=max(float(np.quantile(distance[members], each)) for members in own),
        residual=max(float(np.quantile(residual[members], each)) for members in own),
        strength=min(float(np.quantile(strength[members], 1 - each)) for members in own),
    )
