"""Is this like anything the model was trained on? The gate before every answer, with two questions.

It judges by the texture of a picture: how strongly the channels of an earlier layer answer, and how unevenly. The last
layers name cells, and have learnt to look past stain, focus and scale; so to them much that is no cell looks like one.

Is it a cell at all? A logistic regression in the principal directions of the textures tells cells, under every stain
that augmentation can make, from pictures of none (outlier exposure; Hendrycks et al. 2019, ICLR).

Is it from a familiar microscope? Two measures: the Mahalanobis distance to the nearest group of training cells (one
cell type of one source; Lee et al. 2018, NeurIPS), and the residual outside of the principal directions. Each is
divided by its usual limit, and the larger counts.

The score joins both: up to 1 is familiar, up to `far` a cell from an unfamiliar microscope, beyond it no cell at all.

Bundles before version 1.2.0 have no textures. Their gates judge by the pooled features of the last layer, laid on the
unit sphere, and have a third measure, the strength (length) that these had before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

DIRECTIONS = 128
_SHRINKAGE = 0.1
_TINY = 1e-6
_LEAST_SPREAD = 0.1  # of the median one: a channel that hardly ever answers must not decide
_MOST_SPREADS = 8.0
_MOST_LOG_ODDS = 5.0
_RIDGE = 0.01


@dataclass(frozen=True)
class FeatureBank:
    """Where the training cells lie among the features (n, d) that the gate judges by.

    `mean` (d,), `spread` (d,), or (0,) for features on the unit sphere, `directions` (d, k), `whitening` (k, k), the
    `centres` (groups, k) of the groups after whitening, the regression against what is no cell, `refusal` (k + 1,), its
    constant last, and `shift` (d,): how far the cells of the microscope lie away that a bundle was adapted to.
    """

    mean: Floats
    spread: Floats
    directions: Floats
    whitening: Floats
    centres: Floats
    refusal: Floats
    shift: Floats

    @property
    def is_on_the_sphere(self) -> bool:
        """Whether it judges by pooled features, laid on the unit sphere, as before version 1.2.0."""
        return not self.spread.size

    def judged(self, pooled: Floats, texture: Floats) -> Floats:
        """Return what it judges by: the textures (n, 1152), or the pooled features (n, 1280)."""
        return pooled if self.is_on_the_sphere else texture

    def placed(self, features: Floats) -> Floats:
        """Return features (n, d) as seen from the middle of the training cells, in their spreads."""
        if self.is_on_the_sphere:
            return np.asarray(unit_vectors(features) - self.mean, np.float32)
        return np.asarray(np.clip((features - self.mean) / self.spread, -_MOST_SPREADS, _MOST_SPREADS), np.float32)

    def refusal_logits(self, features: Floats) -> Floats:
        """Return, for features (n, d), the log odds (n,) that it is no cell."""
        inside = self.placed(features) @ self.directions
        return np.asarray(inside @ self.refusal[:-1] + self.refusal[-1], np.float32)

    def distances(self, placed: Floats) -> tuple[Floats, Floats]:
        """Return, for placed features (n, d), the distance to the nearest group and the residual, each (n,)."""
        inside = placed @ self.directions
        residual = np.sqrt(np.maximum((placed**2).sum(axis=1) - (inside**2).sum(axis=1), 0))
        white = inside @ self.whitening
        squares = (white**2).sum(axis=1)[:, None] - 2 * white @ self.centres.T + (self.centres**2).sum(axis=1)
        distance = np.sqrt(np.maximum(squares.min(axis=1), 0) / self.directions.shape[1])
        return np.asarray(distance, np.float32), np.asarray(residual, np.float32)


def read_bank(file: Path) -> FeatureBank:
    """Read a bank from its file. Raises OSError, ValueError or KeyError."""
    with np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays}
    # Bundles before version 1.2.0 have neither.
    found.setdefault("spread", np.zeros(0, np.float32))
    found.setdefault("shift", np.zeros_like(found["mean"]))
    return FeatureBank(**{name: found[name] for name in FeatureBank.__dataclass_fields__})


def save_bank(bank: FeatureBank, file: Path) -> None:
    """Write a bank as arrays."""
    np.savez(file, allow_pickle=False, **bank.__dict__)


@dataclass(frozen=True)
class UsualLimits:
    """What has score 1: the largest usual `distance` and `residual`, and the least usual `strength` of features, which
    is 0 where none is asked for.
    """

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

    def scores(self, features: Floats) -> Floats:
        """Return the score, float32 (n,), of features (n, d); at most 1 is familiar."""
        beyond = np.clip(self.bank.refusal_logits(features) - self.refused_from, -_MOST_LOG_ODDS, _MOST_LOG_ODDS)
        return np.asarray(np.maximum(self.novelty(features), self.far * np.exp(beyond)), np.float32)

    def novelty(self, features: Floats) -> Floats:
        """Return how unlike every familiar microscope features (n, d) are, float32 (n,); usual is at most 1."""
        placed = self.bank.placed(features)
        novelty = self._beyond_usual(placed)
        if self.bank.shift.any():
            novelty = np.minimum(novelty, self._beyond_usual(placed - self.bank.shift))
        strength = np.maximum(np.linalg.norm(features, axis=1), _TINY)
        return np.asarray(np.maximum(novelty, self.limits.strength / strength), np.float32)

    def _beyond_usual(self, placed: Floats) -> Floats:
        distance, residual = self.bank.distances(placed)
        return np.asarray(np.maximum(distance / self.limits.distance, residual / self.limits.residual), np.float32)


def unit_vectors(features: Floats) -> Floats:
    """Return features (n, d) with length 1."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), _TINY), np.float32)


def fit_bank(
    features: Floats, groups: Sequence[str], restained: Floats, junk: Floats, directions: int = DIRECTIONS
) -> FeatureBank:
    """Fit the bank to features (n, d) and their groups; `restained` are cells too, `junk` (m, d) are none."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.maximum(spread, max(_LEAST_SPREAD * float(np.median(spread)), _TINY))

    def placed(others: Floats) -> Doubles:
        return np.asarray(np.clip((others - mean) / spread, -_MOST_SPREADS, _MOST_SPREADS), np.float64)

    own = placed(features)
    _, vectors = np.linalg.eigh(own.T @ own)
    chosen = vectors[:, ::-1][:, : min(directions, len(features) - 1)]
    inside = own @ chosen
    names = sorted(set(groups))
    index = np.array([names.index(group) for group in groups])
    means = np.stack([inside[index == i].mean(axis=0) for i in range(len(names))])
    within = inside - means[index]
    covariance = within.T @ within / max(len(within) - len(names), 1)
    mean_variance = np.trace(covariance) / len(covariance)
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * mean_variance * np.eye(len(covariance))
    values, axes = np.linalg.eigh(covariance)
    whitening = axes / np.sqrt(values)
    refusal = fit_logistic(np.concatenate([inside, placed(restained) @ chosen]), placed(junk) @ chosen)
    arrays = (mean, spread, chosen, whitening, means @ whitening, refusal, np.zeros_like(mean))
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


def usual_limits(bank: FeatureBank, features: Floats, sources: Sequence[str], accepted: float) -> UsualLimits:
    """Return the limits within which at least `accepted` of the cells of *every* source lie, after the bank's shift."""
    distance, residual = bank.distances(bank.placed(features) - bank.shift)
    strength = np.linalg.norm(features, axis=1)
    names = np.array(sources)
    own = [names == name for name in sorted(set(sources))]
    # All must hold at once, so each gets its part of what may be refused.
    each = 1 - (1 - accepted) / (3 if bank.is_on_the_sphere else 2)
    return UsualLimits(
        distance=max(float(np.quantile(distance[members], each)) for members in own),
        residual=max(float(np.quantile(residual[members], each)) for members in own),
        strength=min(float(np.quantile(strength[members], 1 - each)) for members in own)
        if bank.is_on_the_sphere
        else 0.0,
    )
