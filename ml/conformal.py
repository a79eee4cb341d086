"""Which cell types can't be ruled out: conformal sets with a guarantee for each class.

A class is in the set when its probability reaches the class's threshold, an order statistic of the probabilities
that held-out cells of the class got (Mondrian conformal prediction, Vovk et al. 2005). The rank is chosen so that
the coverage holds with 90 % confidence or more over the draw of the held-out cells (Vovk 2012, ACML), and not just
on average. A set is never empty.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.95
_CONFIDENCE = 0.9


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Return P(X <= k) for X ~ Binomial(n, p)."""
    logs = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(max(k, -1) + 1)
    )
    return math.fsum(math.exp(value) for value in logs)


def threshold_rank(n: int, coverage: float = COVERAGE, confidence: float = _CONFIDENCE) -> int:
    """Return the rank (1 = smallest) of the order statistic that covers `coverage` with `confidence`; 0 if n is too
    small.
    """
    rank = 0
    while rank < n and binomial_cdf(rank, n, 1 - coverage) <= 1 - confidence:
        rank += 1
    return rank


def class_thresholds(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    classes: int,
    sources: Sequence[str] | None = None,
    confidence: float = _CONFIDENCE,
) -> list[float]:
    """Return one threshold a class from calibrated probabilities (n, classes) and true class indices (n,).

    With `sources` (n,) the promise is kept for the cells of every source that has enough of the class, and not just for
    all of them together. A class with too few held-out cells for the guarantee gets 0, which keeps it in every set.
    `confidence` is that of the guarantee over the draw of the held-out cells, as if they were independent.
    """
    of_source = np.array(sources if sources is not None else [""] * len(labels))
    return [
        min(
            [
                _threshold(probabilities[own, index], confidence),
                *(
                    _threshold(alone, confidence)
                    for source in np.unique(of_source[own])
                    if threshold_rank(
                        len(alone := probabilities[own & (of_source == source), index]), confidence=confidence
                    )
                ),
            ]
        )
        for index in range(classes)
        for own in [labels == index]
    ]


def _threshold(own: NDArray[np.floating], confidence: float) -> float:
    rank = threshold_rank(len(own), confidence=confidence)
    return float(np.sort(own)[rank - 1]) if rank else 0.0


def conformal_sets(probabilities: NDArray[np.floating], thresholds: Sequence[float]) -> list[list[int]]:
    """Return the class indices of each set, the most probable first, for probabilities (n, classes)."""
    reached = probabilities >= np.asarray(thresholds)
    reached[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = True
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return [[int(i) for i in ranked if row[i]] for ranked, row in zip(order, reached, strict=True)]
