"""Intervals: a figure without one is not a result."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959963984540054


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927) of `right` out of `n`; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    share = right / n
    centre = share + _Z95**2 / (2 * n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    scale = 1 + _Z95**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def clustered(
    right: NDArray[np.bool_], clusters: Sequence[str], draws: int = 4000, seed: int = 7
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `right` (n,) by drawing whole clusters with replacement (percentile
    bootstrap).

    Where all are right, or all wrong, there is nothing to draw from: Wilson's interval over the clusters then. One
    cluster tells nothing of others: (0, 1). Of nothing: (0, 1).
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2:
        return 0.0, 1.0
    if right.all() or not right.any():
        return wilson(len(names) if right.all() else 0, len(names))
    hits = np.bincount(index, weights=right.astype(np.float64), minlength=len(names))
    sizes = np.bincount(index, minlength=len(names)).astype(np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(names), (draws, len(names)))
    shares = hits[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)
