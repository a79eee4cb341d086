"""An estimate of the true shares behind a model's counts, corrected for its known misclassification.

The matrix method: what is said is the true shares times the confusion matrix, so the true shares are what is said times
its inverse (for two classes Rogan and Gladen 1978; for several Grassia and Sundberg 1982, Hay 1988; Buonaccorsi 2010).
The variance is that of the delta method, with the sampling of the cells and that of the matrix. Fit for cells that
nobody has reviewed, all of them, from one model: what is left after a review is no longer a sample.
Standard library only; percent is 0..100.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from classifier.binomial import Z95, score_limits
from classifier.differential import LEUKOCYTES, pooled

# Data sets of a model card from the nearest to daily use on: other slides before other cells of the same slides.
NEAREST_FIRST = (
    "raabin_held_out_slides",
    "local_cells_cross_validated",
    "jtsc_never_trained_on",
    "kaggle_test_simple",
    "pbc_test",
)
FEWEST_CELLS = 10  # of a true type, to know how it is called
MOST_AMPLIFIED = 10.0  # how far the inverse may blow up an error of the counts
Matrix = list[list[float]]


@dataclass(frozen=True)
class Confusion:
    """How often true cells of a data set were called what: `counts` is true -> said -> n, `n` all its cells.

    `design_effect` (1 or more) says how many times wider than that of independent cells the variance of its accuracy
    is: cells of one slide are called right or wrong together.
    """

    data_set: str
    counts: Mapping[str, Mapping[str, int]]
    design_effect: float = 1.0

    @property
    def n(self) -> int:
        return sum(sum(said.values()) for said in self.counts.values())


@dataclass(frozen=True)
class CorrectedShare:
    """A leukocyte type: its share as the model counts it, and the estimate with its 95 % limits, all in percent.

    `measured` is false for a type that the data set does not hold: it is taken as it was called.
    """

    label: str
    n: int
    raw: float
    percent: float
    low: float
    high: float
    measured: bool


@dataclass(frozen=True)
class CorrectedShares:
    """The estimate for the `n` pre-classified leukocytes, and what it rests on."""

    n: int
    confusion: Confusion
    shares: tuple[CorrectedShare, ...]

    @property
    def not_measured(self) -> list[str]:
        return [share.label for share in self.shares if not share.measured]


def nearest_confusion(metrics: Mapping[str, Any]) -> Confusion | None:
    """The confusion matrix of a model card's `metrics` that is nearest to daily use; None where it holds none."""
    measured = {
        key: figures for key, figures in metrics.items() if isinstance(figures, Mapping) and figures.get("confusion")
    }
    key = next((key for key in (*NEAREST_FIRST, *measured) if key in measured), None)
    if key is None:
        return None
    counts: dict[str, dict[str, int]] = {}
    for true, said in measured[key]["confusion"].items():
        row = counts.setdefault(next(iter(pooled({true: 0}))), {})
        for label, n in pooled(said).items():
            row[label] = row.get(label, 0) + n
    return Confusion(key, counts, design_effect_of(measured[key]))


def design_effect_of(figures: Mapping[str, Any]) -> float:
    """How many times the variance of the set's accuracy exceeds that of independent cells; 1 where that is unknown."""
    if not figures.get("n") or figures.get("accuracy_low") is None or figures.get("accuracy_high") is None:
        return 1.0
    width = float(figures["accuracy_high"]) - float(figures["accuracy_low"])
    plain_low, plain_high = score_limits(figures["accuracy"] * figures["n"], figures["n"])
    return max(1.0, (width / (plain_high - plain_low)) ** 2)


def corrected_shares(counts: Mapping[str, int], confusion: Confusion) -> CorrectedShares | None:
    """Estimate the shares of the leukocytes behind a model's `counts` (by label, outside types among them).

    Estimates below 0 are set to 0 and all are scaled to 100 % together. None where no leukocyte is counted, where
    nothing of them was measured, and where the matrix is so near to singular that the estimate would be noise.
    """
    said = pooled(counts)
    n = sum(said.get(label, 0) for label in LEUKOCYTES)
    rows = {true: row for true, row in confusion.counts.items() if sum(row.values()) >= FEWEST_CELLS}
    if n == 0 or not rows:
        return None
    met = {*rows, *(label for row in rows.values() for label in row), *(label for label, k in said.items() if k)}
    labels = [*(label for label in LEUKOCYTES if label in met), *sorted(met.difference(LEUKOCYTES))]
    matrix = [_row(label, rows.get(label), labels) for label in labels]
    inverse = _inverse(matrix)
    if inverse is None or _largest_row_sum(inverse) > MOST_AMPLIFIED:
        return None
    observed = [said.get(label, 0) for label in labels]
    estimate = _estimate(_shares(observed), inverse, labels)
    # For the variance alone, one imaginary cell is spread over the labels: a count of 0 is not known to be 0.
    spread = _shares([k + 1 / len(labels) for k in observed])
    covariance = _covariance(spread, sum(observed), rows, confusion.design_effect, labels, inverse)
    shares = []
    for place, label in enumerate(labels):
        if label in LEUKOCYTES and (said.get(label) or estimate[place] > 0):
            low, high = _limits(place, estimate, covariance, observed, labels)
            raw = said.get(label, 0)
            shares.append(
                CorrectedShare(
                    label, raw, 100 * raw / n, 100 * estimate[place], 100 * low, 100 * high, measured=label in rows
                )
            )
    return CorrectedShares(n, confusion, tuple(shares))


def _row(true: str, said: Mapping[str, int] | None, labels: Sequence[str]) -> list[float]:
    """The shares of what cells of a true type are called; themselves, where that was not measured."""
    if said is None:
        return [float(label == true) for label in labels]
    return _shares([said.get(label, 0) for label in labels])


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts]


def _estimate(said: Sequence[float], inverse: Matrix, labels: Sequence[str]) -> list[float]:
    """The true shares among the leukocytes, none below 0, 1 in all; 0 for the other labels."""
    solved = _through(said, inverse)
    kept = [max(0.0, share) if label in LEUKOCYTES else 0.0 for label, share in zip(labels, solved, strict=True)]
    total = sum(kept)
    return [share / total for share in kept] if total > 0 else kept


def _covariance(
    said: Sequence[float],
    n: int,
    rows: Mapping[str, Mapping[str, int]],
    design_effect: float,
    labels: Sequence[str],
    inverse: Matrix,
) -> Matrix:
    """The covariance of the solved shares: that of the counted cells and that of each row of the matrix, taken through
    the inverse.
    """
    inner = _multinomial(said, n)
    solved = _through(said, inverse)
    for share, label in zip(solved, labels, strict=True):
        if label in rows:
            row = [rows[label].get(other, 0) + 1 / len(labels) for other in labels]
            sampled = _multinomial(_shares(row), sum(rows[label].values()) / design_effect)
            inner = _added(inner, sampled, share * share)
    transposed = [list(column) for column in zip(*inverse, strict=True)]
    return _product(_product(transposed, inner), inverse)


def _limits(
    place: int, estimate: Sequence[float], covariance: Matrix, observed: Sequence[int], labels: Sequence[str]
) -> tuple[float, float]:
    """The 95 % limits of a share: the symmetric ones and, where they reach further, the score limits of as many
    independent cells as give the share its variance (after Korn and Graubard 1998).

    The score limits keep a share of 0 from looking certain. The symmetric ones are needed beside them since what leaks
    into a rare type from a common one does not get less as the rare one gets rarer.
    """
    share = estimate[place]
    # Scaling to the leukocytes: a change of any of them moves the share.
    slope = [((place == other) - share) * (label in LEUKOCYTES) for other, label in enumerate(labels)]
    variance = _product(_product([slope], covariance), [[each] for each in slope])[0][0]
    leukocytes = sum(k for k, label in zip(observed, labels, strict=True) if label in LEUKOCYTES)
    # A share that was corrected down to 0 has the variance of the cells that were taken away.
    typical = min(1 - 0.5 / leukocytes, max(share, observed[place] / leukocytes, 0.5 / leukocytes))
    equivalent = min(float(leukocytes), typical * (1 - typical) / variance)
    low, high = score_limits(share * equivalent, equivalent)
    reach = Z95 * math.sqrt(variance)
    return max(0.0, min(low, share - reach)), min(1.0, max(high, share + reach))


def _multinomial(shares: Sequence[float], n: float) -> Matrix:
    """The covariance of the shares of a multinomial count of n."""
    return [[((i == j) * one - one * other) / n for j, other in enumerate(shares)] for i, one in enumerate(shares)]


def _through(vector: Sequence[float], matrix: Matrix) -> list[float]:
    return _product([list(vector)], matrix)[0]


def _product(left: Matrix, right: Matrix) -> Matrix:
    columns = list(zip(*right, strict=True))
    return [[math.fsum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in left]


def _added(left: Matrix, right: Matrix, times: float) -> Matrix:
    return [[a + times * b for a, b in zip(one, other, strict=True)] for one, other in zip(left, right, strict=True)]


def _largest_row_sum(matrix: Matrix) -> float:
    return max(sum(abs(value) for value in row) for row in matrix)


def _inverse(matrix: Matrix) -> Matrix | None:
    """The inverse by elimination with row pivots; None where a pivot vanishes."""
    size = len(matrix)
    work = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(work[row][column]))
        if abs(work[pivot][column]) < 1e-9:
            return None
        work[column], work[pivot] = work[pivot], work[column]
        scale = work[column][column]
        work[column] = [value / scale for value in work[column]]
        for row in range(size):
            factor = work[row][column]
            if row != column and factor:
                work[row] = [value - factor * top for value, top in zip(work[row], work[column], strict=True)]
    return [row[size:] for row in work]
