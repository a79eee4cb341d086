"""Exact binomial limits of a share, and what follows from them. Standard library only: the web process has no numpy.

They cover the sampling of cells, never misclassification.
"""

import math
from functools import lru_cache

TAIL = 0.025
Z95 = 1.959963984540054
MOST_CELLS = 10_000  # nobody counts more in one smear
CLOSE = 1e-12


@lru_cache(maxsize=16_384)
def limits(k: int, n: int) -> tuple[float, float]:
    """The exact 95 % limits (Clopper and Pearson 1934) of `k` out of `n`, as fractions 0..1; (0, 1) of nothing.

    Raises ValueError unless 0 <= k <= n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} out of {n} is not a count.")
    return _lower(k, n), 1.0 - _lower(n - k, n)


def _lower(k: int, n: int) -> float:
    """The share p at which `k` or more out of `n` have a chance of 2.5 %.

    The logarithm of that chance is concave in log p with the slope k / S, S being the sum of the tail in units of its
    first term; so Newton's steps come from below, stay positive and never overshoot after the first.
    """
    if k == 0:
        return 0.0
    constant = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - math.log(TAIL)
    p = score_limits(k, n)[0] if k < n else 0.5
    for _ in range(60):
        tail = _tail_in_first_terms(k, n, p)
        excess = constant + k * math.log(p) + (n - k) * math.log1p(-p) + math.log(tail)
        step = excess * tail / k
        p *= math.exp(-step)
        if abs(step) < CLOSE:
            break
    return p


def _tail_in_first_terms(k: int, n: int, p: float) -> float:
    """The chance of k, k + 1, ... n out of n, divided by that of k."""
    odds = p / (1 - p)
    term = total = 1.0
    for j in range(k, n):
        term *= odds * (n - j) / (j + 1)
        total += term
        if term < 1e-17 * total:
            break
    return total


def score_limits(k: float, n: float) -> tuple[float, float]:
    """The 95 % score limits of k out of n (Wilson 1927); (0, 1) of nothing."""
    if n == 0:
        return 0.0, 1.0
    square = Z95 * Z95
    centre = (k + square / 2) / (n + square)
    half = Z95 * math.sqrt(k * (n - k) / n + square / 4) / (n + square)
    return max(0.0, centre - half), min(1.0, centre + half)


@lru_cache(maxsize=4096)
def cells_needed(k: int, n: int, width: float) -> int | None:
    """How many more cells, of the same share, bring the limits to at most `width` percentage points apart.

    0 where they are that close already; None where more than 10,000 cells in all were needed, and where none has been
    counted yet. Between whole counts of the type the width is interpolated, so that it falls with every cell.
    Raises ValueError for a width that is not above 0.
    """
    if width <= 0:
        raise ValueError("A width is above 0 percentage points.")
    if n == 0:
        return None
    if _expected_width(k, n, n) <= width:
        return 0
    if n >= MOST_CELLS or _expected_width(k, n, MOST_CELLS) > width:
        return None
    too_few, enough = n, MOST_CELLS
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if _expected_width(k, n, middle) <= width:
            enough = middle
        else:
            too_few = middle
    return enough - n


def _expected_width(k: int, n: int, total: int) -> float:
    """How far the limits are apart, in points, after `total` cells of the share k / n."""
    whole, rest = divmod(k * total, n)
    width = _width(whole, total)
    return width if rest == 0 else width + (_width(whole + 1, total) - width) * rest / n


def _width(k: int, n: int) -> float:
    low, high = limits(k, n)
    return 100 * (high - low)


def limits_of_difference(k: int, n: int, other_k: int, other_n: int) -> tuple[float, float]:
    """The 95 % limits of k / n - other_k / other_n, two independent shares (Newcombe 1998, method 10), -1..1.

    (-1, 1) where one of them is a share of nothing. Raises ValueError unless 0 <= k <= n on both sides.
    """
    if not (0 <= k <= n and 0 <= other_k <= other_n):
        raise ValueError(f"{k} out of {n} and {other_k} out of {other_n} are not counts.")
    if n == 0 or other_n == 0:
        return -1.0, 1.0
    share, other_share = k / n, other_k / other_n
    low, high = score_limits(k, n)
    other_low, other_high = score_limits(other_k, other_n)
    difference = share - other_share
    return (
        max(-1.0, difference - math.hypot(share - low, other_high - other_share)),
        min(1.0, difference + math.hypot(high - share, other_share - other_low)),
    )
