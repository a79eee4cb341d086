"""Cohen's kappa of two readings of the same pictures, with its interval. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from classifier.binomial import Z95, limits


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa with its 95 % interval; -1 to 1."""

    value: float
    low: float
    high: float


def kappa_of(confusion: Mapping[str, Mapping[str, int]]) -> Kappa | None:
    """Cohen's kappa, with the large-sample variance of Fleiss, Cohen and Everitt (1969), cut to -1..1.

    Where all pictures agree the lower limit is that of the agreement itself, by exact limits, in units of kappa.
    None where it says nothing: fewer than two pictures, or everything of one type on both sides.
    """
    n = sum(sum(counts.values()) for counts in confusion.values())
    names = set(confusion) | {said for counts in confusion.values() for said in counts}
    if n < 2 or len(names) < 2:
        return None
    share = {(true, said): k / n for true, counts in confusion.items() for said, k in counts.items()}
    rows = {name: sum(p for (true, _), p in share.items() if true == name) for name in names}
    columns = {name: sum(p for (_, said), p in share.items() if said == name) for name in names}
    observed = sum(share.get((name, name), 0.0) for name in names)
    expected = sum(rows[name] * columns[name] for name in names)
    value = (observed - expected) / (1 - expected)
    agreeing = sum(
        share.get((name, name), 0.0) * (1 - (rows[name] + columns[name]) * (1 - value)) ** 2 for name in names
    )
    differing = (1 - value) ** 2 * sum(
        p * (columns[true] + rows[said]) ** 2 for (true, said), p in share.items() if true != said
    )
    variance = (agreeing + differing - (value - expected * (1 - value)) ** 2) / (n * (1 - expected) ** 2)
    half = Z95 * math.sqrt(max(0.0, variance))
    if all(true == said for true, said in share):
        # All agree, so that formula knows no doubt; the exact limit of the agreement does.
        return Kappa(1.0, max(-1.0, (limits(n, n)[0] - expected) / (1 - expected)), 1.0)
    return Kappa(value, max(-1.0, value - half), min(1.0, value + half))
