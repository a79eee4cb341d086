"""What is fitted to a microscope once its labelled cells were seen: head, temperature, thresholds and gate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ml.calibrate import fit_temperature, least_confidence
from ml.conformal import COVERAGE
from ml.gate import Gate, UsualLimits, usual_limits
from ml.head_correction import LocalCells, corrected_head, cross_validated_logits, directions_for
from ml.heat_map import Head
from ml.predictor import softmax
from ml.source_features import SourceFeatures
from ml.views import ALL, ONE, as_served

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_ACCEPTED_LOCALLY = 0.99
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
class Way:
    """A way to serve: with the old head or the corrected one, looking at each cell from so many sides."""

    is_corrected: bool
    views: int


AS_IT_WAS = Way(is_corrected=False, views=ONE)
# The cheapest first: of ways that do as well as each other, the first is taken.
_WAYS = {
    None: (AS_IT_WAS, Way(is_corrected=True, views=ONE), Way(is_corrected=True, views=ALL)),
    ONE: (AS_IT_WAS, Way(is_corrected=True, views=ONE)),
    ALL: (Way(is_corrected=False, views=ALL), Way(is_corrected=True, views=ALL)),
}


@dataclass(frozen=True)
class Adaptation:
    """The fitted parts, and how they did.

    `kept` is the way to serve that was chosen. `hits` hold, for each way, the share (n,) of the repeats of
    cross-validation in which it named each cell right. `familiar` and `junk_refused` are shares `before` and `after`.
    """

    head: Head
    kept: Way
    temperature: float
    conformal_thresholds: list[float]
    least_confidence: float
    gate: Gate
    hits: Mapping[Way, Doubles]
    familiar: dict[str, float]
    junk_refused: dict[str, float]

    @property
    def hits_before(self) -> Doubles:
        """The hits of the bundle as it was."""
        return self.hits[AS_IT_WAS]

    @property
    def hits_kept(self) -> Doubles:
        """The hits of the way that is kept."""
        return self.hits[self.kept]


def adapt(served: Served, cells: LocalCells, junk: Floats, views: int | None = None) -> Adaptation:
    """Fit everything to the cells of a microscope; `junk` (m, views, 1280) are features of what must stay refused.

    The corrected head is kept only if it names more cells right in cross-validation, and one view of it only if that
    does as well as eight; `views`, 1 or 8, decides the latter beforehand. Few cells are ground for doubt
    and not for boldness: a temperature below the old one (1 for a corrected head) is drawn to it as if by 50 cells, and
    no answer is given at a lower confidence than before.
    """
    directions = directions_for(cells, served.source)
    of_each_way = {
        Way(is_corrected=False, views=n): served.head.logits(as_served(cells.pooled, n))[None] for n in (ONE, ALL)
    } | {
        Way(is_corrected=True, views=n): logits
        for n, logits in cross_validated_logits(served.head, cells, served.source, directions).items()
    }
    hits = {way: (logits.argmax(axis=2) == cells.labels).mean(axis=0) for way, logits in of_each_way.items()}
    kept = best_way(hits, _WAYS[views])
    logits, usual = of_each_way[kept], 1.0 if kept.is_corrected else served.temperature
    fitted = fit_temperature(logits.reshape(-1, logits.shape[2]), np.tile(cells.labels, len(logits)))
    trust = len(cells.labels) / (len(cells.labels) + _CELLS_OF_DOUBT)
    temperature = max(fitted, usual ** (1 - trust) * fitted**trust)
    probabilities = np.mean([softmax(each / np.float32(temperature)) for each in logits], axis=0)
    gate = gate_with(served.gate, cells, as_served(junk, kept.views), kept.views)
    both = {"before": (served.gate, ONE), "after": (gate, kept.views)}
    return Adaptation(
        head=corrected_head(served.head, cells, served.source, directions) if kept.is_corrected else served.head,
        kept=kept,
        temperature=temperature,
        conformal_thresholds=local_thresholds(probabilities, cells.labels),
        least_confidence=max(served.least_confidence, least_confidence(probabilities, cells.labels)),
        gate=gate,
        hits=hits,
        familiar={
            name: float((each.scores(as_served(cells.for_gate, n)) <= 1).mean()) for name, (each, n) in both.items()
        },
        junk_refused={name: float((each.scores(as_served(junk, n)) > 1).mean()) for name, (each, n) in both.items()},
    )


def best_way(hits: Mapping[Way, Doubles], ways: Sequence[Way]) -> Way:
    """Return the way with the most cells named right, the first of equals; but eight views of a corrected head also
    where one did better by less than a standard error.

    A mean over views takes noise out of what is served, on other cells too; that it seems to cost something on a few
    is mostly chance.
    """
    best = max(ways, key=lambda way: float(hits[way].mean()))
    wider = replace(best, views=ALL)
    if best.is_corrected and wider in ways:
        gain = hits[best] - hits[wider]
        if gain.any() and gain.mean() < gain.std() / math.sqrt(len(gain)):
            return wider
    return best


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


def gate_with(gate: Gate, cells: LocalCells, junk: Floats, views: int) -> Gate:
    """Return the gate with the microscope among the familiar ones; `junk` (m, 1280) is as it is served.

    Its groups join the bank, and the limits are widened, by half at most, until they hold its cells as they are served,
    however they lie. What counts as no cell moves no further than where 0.99 of the junk is refused.
    """
    given = cells.for_gate
    each = given.reshape(-1, given.shape[2]) if views == ONE else as_served(given, views)
    bank = replace(gate.bank, shift=gate.bank.placed(each).mean(axis=0))
    old, seen = gate.limits, usual_limits(bank, each, ["here"] * len(each), _ACCEPTED_LOCALLY)
    limits = UsualLimits(
        distance=min(max(old.distance, seen.distance), _MOST_WIDENED * old.distance),
        residual=min(max(old.residual, seen.residual), _MOST_WIDENED * old.residual),
        strength=max(min(old.strength, seen.strength), old.strength / _MOST_WIDENED),
    )
    # The score of log odds x is far * exp(x - refused_from): familiar, which is at most 1, begins log(far) below.
    wanted = float(np.quantile(bank.refusal_logits(each), _ACCEPTED_LOCALLY)) + math.log(gate.far)
    most = float(np.quantile(bank.refusal_logits(junk), 1 - _JUNK_REFUSED))
    return Gate(bank, limits, gate.far, max(gate.refused_from, min(wanted, most)))
