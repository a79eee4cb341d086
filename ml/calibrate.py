"""Calibration on held-out cells: one temperature, conformal thresholds, the least confidence for an answer, and the
gate.

Works on the serving files with the serving runtime, so that what is calibrated is what is served.
"""

import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.augment import training_view
from ml.conformal import class_thresholds
from ml.dataset import Scene
from ml.errors import UnusableData
from ml.gate import Gate, fit_bank, usual_limits
from ml.predictor import softmax
from ml.progress import Progress
from ml.runtime import Runtime

Floats = NDArray[np.float32]

# Of every source of the validation cells; of held-out cells hardly one in a hundred is beyond such limits.
ACCEPTED_IN_DOMAIN = 0.97
ACCEPTED_RESTAINED = 0.995
# Some restained views are so faint or blurred that nobody would call them cells.
_TAKEN_FOR_CELLS = 0.995
_RESTAINED_TAKEN_FOR_CELLS = 0.98
# Cells of one slide resemble each other: confidence that is computed as if they did not promises too much.
SURE_OF_COVERAGE = 0.99
RIGHT_WHEN_ANSWERED = 0.995
MOST_ABSTAINED = 0.08


@dataclass(frozen=True)
class Seen:
    """What the network made of n pictures: `pooled` (n, 1280), `logits` (n, classes), `texture` (n, 1152)."""

    pooled: Floats
    logits: Floats
    texture: Floats


@dataclass(frozen=True)
class SeenCells(Seen):
    """The same of labelled cells: `labels` (n,) are class indices, `sources` name their sets."""

    labels: NDArray[np.int64]
    sources: list[str]


@dataclass(frozen=True)
class Restained:
    """The textures (n, 1152) of training and validation cells under strong random views."""

    training: Floats
    validation: Floats


@dataclass(frozen=True)
class Calibration:
    """The fitted numbers of a card. `conformal_thresholds` are in the order of the labels."""

    temperature: float
    conformal_thresholds: list[float]
    least_confidence: float
    gate: Gate


def look(runtime: Runtime, views: NDArray[np.uint8], what: str) -> Seen:
    """Return what the network makes of prepared pixels (n, S, S, 3)."""
    blocks = []
    progress = Progress(what, len(views))
    for start in range(0, len(views), 64):
        output = runtime.run(views[start : start + 64])
        blocks.append((output.maps.mean(axis=(1, 2)), output.logits, output.texture))
        progress.advance(len(output.logits))
    return Seen(*(np.concatenate(own) for own in zip(*blocks, strict=True)))


def restained_views(scenes: Sequence[Scene], size: int, seed: int = 11) -> NDArray[np.uint8]:
    """Return each scene under one strong random view: a stand-in for microscopes that were never seen."""
    return np.stack(
        [
            training_view(scene, size, np.random.default_rng([seed, number]), mild_share=0.0)
            for number, scene in enumerate(scenes)
        ]
    )


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the temperature with the least log loss (Guo et al. 2017, ICML), by golden-section search in 0.2..5."""

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits.astype(np.float64) / math.exp(log_temperature))
        return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())

    low, high = math.log(0.2), math.log(5)
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        first, second = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, second) if loss(first) < loss(second) else (first, high)
    return math.exp((low + high) / 2)


def least_confidence(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the least confidence for an answer: so that answers are 0.995 right, but at most 8 % of the cells are
    unanswered.
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    right_so_far = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    fewest = math.ceil((1 - MOST_ABSTAINED) * len(order))
    good = [count for count in range(fewest, len(order) + 1) if right_so_far[count - 1] >= RIGHT_WHEN_ANSWERED]
    return float(confidence[order[(max(good) if good else fewest) - 1]])


def calibrate(training: SeenCells, validation: SeenCells, restained: Restained, junk: Floats) -> Calibration:
    """Fit everything.

    `training` cells, as they are and restained, and the textures of `junk` (m, 1152) fill the gate's bank; `validation`
    cells, likewise as they are and restained, set the limits. Raises UnusableData for a network without textures.
    """
    if not training.texture.shape[1]:
        raise UnusableData("This bundle is of an older format: export it anew from its training weights first.")
    temperature = fit_temperature(validation.logits, validation.labels)
    probabilities = softmax(validation.logits / np.float32(temperature))
    groups = [f"{source}:{label}" for source, label in zip(training.sources, training.labels, strict=True)]
    bank = fit_bank(training.texture, groups, restained.training, junk)
    limits = usual_limits(bank, validation.texture, validation.sources, ACCEPTED_IN_DOMAIN)
    open_gate = Gate(bank, limits, far=1.0, refused_from=math.inf)
    far = max(1.0, float(np.quantile(open_gate.novelty(restained.validation), ACCEPTED_RESTAINED)))
    refused_from = max(
        float(np.quantile(bank.refusal_logits(validation.texture), _TAKEN_FOR_CELLS)),
        float(np.quantile(bank.refusal_logits(restained.validation), _RESTAINED_TAKEN_FOR_CELLS)),
    )
    return Calibration(
        temperature=temperature,
        conformal_thresholds=class_thresholds(
            probabilities, validation.labels, probabilities.shape[1], validation.sources, SURE_OF_COVERAGE
        ),
        least_confidence=least_confidence(probabilities, validation.labels),
        gate=Gate(bank, limits, far, refused_from),
    )


def compress(source: Path, target: Path) -> None:
    """Compress a file, the same bytes every time."""
    target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))
