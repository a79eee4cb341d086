"""What a named cell is worth in ordinary blood: predictive values at the shares that cell types have there.

A test set holds about as many basophils as neutrophils; blood holds a hundred times fewer. The share of right ones
among the cells that a model calls "basophil" (the predictive value) therefore has to be computed anew for blood:
PPV(c) = p(c) P(said c | c) / sum over k of p(k) P(said c | k), by Bayes' rule. Standard library only: the web process
uses it too.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

# A usual differential of an adult, in shares of the leukocytes.
ADULT_DIFFERENTIAL: dict[str, float] = {
    "neutrophil": 0.60,
    "lymphocyte": 0.30,
    "monocyte": 0.07,
    "eosinophil": 0.03,
    "basophil": 0.005,
}
_DRAWS = 2000

Confusion = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class PredictiveValue:
    """The predictive value of one cell type at its `prevalence`, with its 95 % interval; fractions 0..1."""

    prevalence: float
    ppv: float
    low: float
    high: float


def adult_prevalences(confusion: Confusion) -> dict[str, float]:
    """Return the adult shares of the five leukocytes that occur in a test set, scaled to sum to 1.

    Any other type (erythroblast, platelet, immature granulocyte, ...) is taken as absent from normal adult blood and
    has no prevalence here.
    """
    present = {label: share for label, share in ADULT_DIFFERENTIAL.items() if sum(confusion.get(label, {}).values())}
    total = sum(present.values())
    return {label: share / total for label, share in present.items()}


def predictive_values(confusion: Confusion) -> dict[str, PredictiveValue | None]:
    """Return the predictive value of each true type of a confusion matrix (true -> said -> number of pictures).

    Assumes that the model errs in blood as it does in the test set, that the five leukocytes come in the adult shares
    60 : 30 : 7 : 3 : 0.5 (of those that occur in the set), and that nothing else is in the blood. None for a type
    outside of the five, and for one that the model never says. The interval is that of the posterior of the error rates
    under Jeffreys' prior, each picture counting by itself (so it is too narrow where pictures come from few slides).
    """
    shares = adult_prevalences(confusion)
    sizes = {label: sum(confusion[label].values()) for label in shares}
    values: dict[str, PredictiveValue | None] = dict.fromkeys(confusion)
    for label in shares:
        own = (sizes[label], confusion[label].get(label, 0), shares[label])
        others = tuple((sizes[k], confusion[k].get(label, 0), shares[k]) for k in shares if k != label)
        values[label] = _predictive_value(own, others)
    return values


@lru_cache(maxsize=512)
def _predictive_value(
    own: tuple[int, int, float], others: tuple[tuple[int, int, float], ...]
) -> PredictiveValue | None:
    """The value from (pictures, called so, prevalence) of the type itself and of each other type."""
    n, hits, share = own
    wrong = sum(share_k * said / n_k for n_k, said, share_k in others)
    if hits == 0 and wrong == 0:
        return None
    right = share * hits / n
    chance = random.Random(0)
    draws = []
    for _ in range(_DRAWS):
        true = share * chance.betavariate(hits + 0.5, n - hits + 0.5)
        false = sum(p * chance.betavariate(said + 0.5, n_k - said + 0.5) for n_k, said, p in others)
        draws.append(true / (true + false))
    draws.sort()
    point = right / (right + wrong)
    low, high = draws[round(0.025 * _DRAWS)], draws[round(0.975 * _DRAWS) - 1]
    # With no false call in the set the point is 1, which no draw reaches.
    return PredictiveValue(share, point, min(low, point), max(high, point))
