"""What is fitted to a microscope once its labelled cells were seen: head, temperature, thresholds and gate."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ml.calibrate import ACCEPTED_IN_DOMAIN, fit_temperature, least_confidence
from ml.conformal import COVERAGE
from ml.gate import FeatureBank, Gate, UsualLimits, unit_vectors, usual_limits
from ml.head_correction import LocalCells, corrected_head, cross_validated_logits, directions_for
from ml.heat_map import Head
from ml.predictor import softmax
from ml.source_features import SourceFeatures

Floats = NDArray[np.float32]

_FEWEST_OF_A_GROUP = 5
_MOST_WIDENED = 1.5
_JUNK_REFUSED = 0.99
_CELLS_OF_DOUBT = 50


@dataclass(frozen=True)
class Served:
    """What a bundle serves with, as far as it can be fitted anew, and the features of its training cells if any."""

    head: Head
    gate: Gate
    temperature: float
    least_confidence: float
    source: SourceFeatures | None

    @property
    def source_cells(self) -> int:
        """How many training cells take part."""
        return len(self.source.labels) if self.source else 0


@dataclass(frozen=True)
class Adaptation:
    """The fitted parts, and how they did.

    `is_corrected` tells whether the head is the corrected one. `hits_before` and `hits_after` (n,) are the share of the
    repeats of cross-validation in which the old and the corrected head named each cell right. `familiar` and
    `junk_refused` are shares `before` and `after`.
    """

    head: Head
    is_corrected: bool
    temperature: float
    conformal_thresholds: list[float]
    least_confidence: float
    gate: Gate
    hits_before: NDArray[np.float64]
    hits_after: NDArray[np.float64]
    familiar: dict[str, float]
    junk_refused: dict[str, float]

    @property
    def hits_kept(self) -> NDArray[np.float64]:
        """The hits of the head that is kept."""
        return self.hits_after if self.is_corrected else self.hits_before


def adapt(served: Served, cells: LocalCells, junk: Floats) -> Adaptation:
    """Fit everything to the cells of a microscope; `junk` (m, 1280) are features of what must stay refused.

    The corrected head is kept only if it names more cells right in cross-validation. Few cells are ground for doubt and
    not for boldness: a temperature below the old one (1 for a corrected head) is drawn to it as if by 50 cells, and no
    answer is given at a lower confidence than before.
    """
    old = served.head.logits(cells.pooled[:, 0])
    directions = directions_for(cells, served.source)
    repeated = cross_validated_logits(served.head, cells, served.source, directions)
    hits_before = np.asarray(old.argmax(axis=1) == cells.labels, np.float64)
    hits_after = (repeated.argmax(axis=2) == cells.labels).mean(axis=0)
    is_corrected = bool(hits_after.mean() > hits_before.mean())
    logits, usual = (repeated, 1.0) if is_corrected else (old[None], served.temperature)
    fitted = fit_temperature(logits.reshape(-1, logits.shape[2]), np.tile(cells.labels, len(logits)))
    trust = len(cells.labels) / (len(cells.labels) + _CELLS_OF_DOUBT)
    temperature = max(fitted, usual ** (1 - trust) * fitted**trust)
    probabilities = np.mean([softmax(each / np.float32(temperature)) for each in logits], axis=0)
    gate = gate_with(served.gate, cells, junk)
    both = {"before": served.gate, "after": gate}
    return Adaptation(
        head=corrected_head(served.head, cells, served.source, directions) if is_corrected else served.head,
        is_corrected=is_corrected,
        temperature=temperature,
        conformal_thresholds=local_thresholds(probabilities, cells.labels),
        least_confidence=max(served.least_confidence, least_confidence(probabilities, cells.labels)),
        gate=gate,
        hits_before=hits_before,
        hits_after=hits_after,
        familiar={name: float((each.scores(cells.pooled[:, 0]) <= 1).mean()) for name, each in both.items()},
        junk_refused={name: float((each.scores(junk) > 1).mean()) for name, each in both.items()},
    )


def local_thresholds(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> list[float]:
    """Return the conformal threshold of each class from held-out probabilities (n, classes) of n >= 19 cells.

    Each holds 0.95 of the cells on average over the draw of the labelled ones (Vovk et al. 2005), which is less than a
    whole bundle promises: its 90 % confidence takes 45 cells a class for sets that then hold nearly every type. A class
    with fewer than 19 cells of its own has the threshold of all together, which promises nothing for it alone.
    """
    n, classes = probabilities.shape
    of_the_truth = probabilities[np.arange(n), labels]
    own = [np.sort(of_the_truth[labels == index]) for index in range(classes)]
    usable = [each if _rank(len(each)) else np.sort(of_the_truth) for each in own]
    return [float(each[_rank(len(each)) - 1]) for each in usable]


def _rank(n: int) -> int:
    """The order statistic (1 = smallest) that 0.95 of new cells reach on average; 0 where n is too small for one."""
    return math.floor((n + 1) * (1 - COVERAGE) + 1e-9)


def gate_with(gate: Gate, cells: LocalCells, junk: Floats) -> Gate:
    """Return the gate with the microscope among the familiar ones.

    Its groups join the bank, and the limits are widened, by half at most, until they hold its cells in every view. What
    counts as no cell moves no further than where 0.99 of the junk is refused.
    """
    views = cells.pooled.reshape(-1, cells.pooled.shape[2])
    bank = bank_with(gate.bank, cells)
    old, seen = gate.limits, usual_limits(bank, views, ["here"] * len(views), ACCEPTED_IN_DOMAIN)
    limits = UsualLimits(
        distance=min(max(old.distance, seen.distance), _MOST_WIDENED * old.distance),
        residual=min(max(old.residual, seen.residual), _MOST_WIDENED * old.residual),
        strength=max(min(old.strength, seen.strength), old.strength / _MOST_WIDENED),
    )
    # The score of log odds x is far * exp(x - refused_from): familiar, which is at most 1, begins log(far) below.
    wanted = float(np.quantile(bank.refusal_logits(views), ACCEPTED_IN_DOMAIN)) + math.log(gate.far)
    most = float(np.quantile(bank.refusal_logits(junk), 1 - _JUNK_REFUSED))
    return Gate(bank, limits, gate.far, max(gate.refused_from, min(wanted, most)))


def bank_with(bank: FeatureBank, cells: LocalCells) -> FeatureBank:
    """Return the bank with the centre of each class that has a few cells."""
    white = (unit_vectors(cells.pooled.mean(axis=1)) - bank.mean) @ bank.directions @ bank.whitening
    names, counts = np.unique(cells.labels, return_counts=True)
    large = names[counts >= _FEWEST_OF_A_GROUP]
    centres = [white[cells.labels == name].mean(axis=0, keepdims=True) for name in large]
    return replace(bank, centres=np.concatenate([bank.centres, *centres]).astype(np.float32))
