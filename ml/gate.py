"""Is this like anything the model was trained on? The gate before every answer.

Pooled features are seen in the principal directions of the training cells: the Mahalanobis distance to the nearest
group of cells (one cell type of one source; Lee et al. 2018, NeurIPS) and the residual outside these directions.
Each is divided by its largest usual value, and the larger of the two is the score: up to 1 is familiar, up to `far`
a cell from an unfamiliar microscope, and beyond it no cell at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DIRECTIONS = 128
_SHRINKAGE = 0.1


@dataclass(frozen=True)
class FeatureBank:
    """Where the training cells lie: `mean` (d,), `directions` (d, k), `centres` (groups, k) after whitening,
    `whitening` (k, k).
    """

    mean: Floats
    directions: Floats
    whitening: Floats
    centres: Floats

    def distances(self, pooled: Floats) -> tuple[Floats, Floats]:
        """Return, for pooled features (n, d), the distance to the nearest group and the residual, each (n,)."""
        centred = pooled - self.mean
        inside = centred @ self.directions
        residual = np.sqrt(np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0))
        white = inside @ self.whitening
        squares = (white**2).sum(axis=1)[:, None] - 2 * white @ self.centres.T + (self.centres**2).sum(axis=1)
        distance = np.sqrt(np.maximum(squares.min(axis=1), 0) / self.directions.shape[1])
        return distance.astype(np.float32, copy=False), residual.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Gate:
    """The bank with its limits. `limits`: the largest usual (distance, residual); `far`: the score beyond which it
    is no cell.
    """

    bank: FeatureBank
    limits: tuple[float, float]
    far: float

    def scores(self, pooled: Floats) -> Floats:
        """Return the score, float32 (n,), of pooled features (n, d); at most 1 is familiar."""
        distance, residual = self.bank.distances(pooled)
        return np.asarray(np.maximum(distance / self.limits[0], residual / self.limits[1]), np.float32)


def fit_bank(pooled: Floats, groups: Sequence[str], directions: int = DIRECTIONS) -> FeatureBank:
    """Fit the bank to pooled features (n, d) and the group of each."""
    mean = pooled.mean(axis=0)
    centred = (pooled - mean).astype(np.float64)
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
    as_float = np.float32
    return FeatureBank(
        mean.astype(as_float), chosen.astype(as_float), whitening.astype(as_float), (means @ whitening).astype(as_float)
    )


def usual_limits(bank: FeatureBank, pooled: Floats, sources: Sequence[str], accepted: float) -> tuple[float, float]:
    """Return the (distance, residual) within which at least `accepted` of the cells of *every* source lie."""
    distance, residual = bank.distances(pooled)
    names = np.array(sources)
    # Both must hold at once, so each gets half of what may be refused.
    each = 1 - (1 - accepted) / 2
    return (
        max(float(np.quantile(distance[names == name], each)) for name in sorted(set(sources))),
        max(float(np.quantile(residual[names == name], each)) for name in sorted(set(sources))),
    )
