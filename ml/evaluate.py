"""Figures of a model on labelled pictures, through the same door that serves them."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.errors import UnreadableImage, UnusableData
from ml.intervals import clustered, wilson
from ml.predictor import CellPrediction, Predictor, PreparedCell
from ml.progress import Progress

BATCH = 32
_BINS = 15
_COARSER = {
    "band_neutrophil": "neutrophil",
    "promyelocyte": "immature_granulocyte",
    "myelocyte": "immature_granulocyte",
    "metamyelocyte": "immature_granulocyte",
}


@dataclass(frozen=True)
class Outcome:
    """What the model said about one labelled picture."""

    path: Path
    label: str
    prediction: CellPrediction

    @property
    def argmax(self) -> str:
        """The most probable type, whether or not the model abstained."""
        return self.argmax_among(list(self.prediction.probabilities))

    def argmax_among(self, labels: Sequence[str]) -> str:
        """The most probable of some types."""
        probabilities = self.prediction.probabilities
        return str(max(labels, key=lambda label: probabilities[label]))


@dataclass(frozen=True)
class Run:
    """The outcomes of readable pictures, the files that could not be read, and the speed in pictures a second."""

    outcomes: list[Outcome]
    unreadable: list[Path]
    images_per_second: float


def label_for_model(label: str, known: Sequence[str]) -> str:
    """Return the label as the model says it: itself, or the coarser type that holds it. Raises UnusableData."""
    if label in known:
        return label
    coarser = _COARSER.get(label, label)
    if coarser in known:
        return coarser
    raise UnusableData(f"The model does not know the cell type {label!r}; it knows {', '.join(known)}.")


def classify(predictor: Predictor, paths: Sequence[Path]) -> Iterator[tuple[Path, CellPrediction | UnreadableImage]]:
    """Classify files in batches, in order; a file that can't be read gives its error instead."""

    def prepare(path: Path) -> PreparedCell | UnreadableImage:
        try:
            return predictor.prepare(path.read_bytes())
        except UnreadableImage as error:
            return error
        except OSError:
            return UnreadableImage("unreadable", "This file could not be opened.")

    with ThreadPoolExecutor(2) as pool:
        waiting = iter(paths)
        while block := list(islice(waiting, BATCH)):
            prepared = list(pool.map(prepare, block))
            cells = [cell for cell in prepared if isinstance(cell, PreparedCell)]
            answers = iter(predictor.predict(cells) if cells else [])
            for path, cell in zip(block, prepared, strict=True):
                yield path, cell if isinstance(cell, UnreadableImage) else next(answers)


def run(predictor: Predictor, pictures: Sequence[tuple[Path, str]], what: str = "evaluate") -> Run:
    """Classify labelled pictures. Raises UnusableData for a label that the model does not know."""
    labels = [label_for_model(label, predictor.card.labels) for _, label in pictures]
    outcomes: list[Outcome] = []
    unreadable: list[Path] = []
    started = time.monotonic()
    answers = Progress(what, len(pictures)).each(classify(predictor, [path for path, _ in pictures]))
    for (path, answer), label in zip(answers, labels, strict=True):
        if isinstance(answer, UnreadableImage):
            unreadable.append(path)
        else:
            outcomes.append(Outcome(path, label, answer))
    return Run(outcomes, unreadable, len(pictures) / max(time.monotonic() - started, 1e-9))


def report(result: Run, clusters: Mapping[Path, str] | None = None) -> dict[str, Any]:
    """Return the figures of a run, all fractions 0..1.

    `accuracy`, `accuracy_restricted` (argmax among the types that are present), `macro_f1` and `ece` are over the
    argmax of every readable picture. Intervals are Wilson's, or by bootstrap over `clusters` (path -> cluster) where
    given. Raises UnusableData if no picture could be read.
    """
    outcomes = result.outcomes
    if not outcomes:
        raise UnusableData("None of the pictures could be read.")
    n = len(outcomes)
    present = sorted({outcome.label for outcome in outcomes})
    truth = [outcome.label for outcome in outcomes]
    said = [outcome.argmax for outcome in outcomes]
    restricted = np.array([outcome.argmax_among(present) == outcome.label for outcome in outcomes])
    right = np.array([a == b for a, b in zip(truth, said, strict=True)])
    predictions = [outcome.prediction for outcome in outcomes]
    answered = np.array([not prediction.abstained for prediction in predictions])
    per_class = _per_class(outcomes, truth, said)
    names = [clusters[outcome.path] for outcome in outcomes] if clusters else None

    def interval(hits: NDArray[np.bool_]) -> tuple[float, float]:
        return clustered(hits, names) if names else wilson(int(hits.sum()), len(hits))

    low, high = interval(right)
    restricted_low, restricted_high = interval(restricted)
    refused = Counter(prediction.reason_code for prediction in predictions if prediction.abstained)
    return {
        "n": n,
        "unreadable": len(result.unreadable),
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": float(np.mean([per_class[label]["f1"] for label in present])),
        "accuracy_restricted": float(restricted.mean()),
        "accuracy_restricted_low": restricted_low,
        "accuracy_restricted_high": restricted_high,
        "per_class": per_class,
        "confusion": {
            label: dict(Counter(s for t, s in zip(truth, said, strict=True) if t == label)) for label in present
        },
        "ece": expected_calibration_error(np.array([p.confidence for p in predictions]), right),
        "conformal_coverage": float(np.mean([o.label in o.prediction.conformal_set for o in outcomes])),
        "conformal_mean_size": float(np.mean([len(p.conformal_set) for p in predictions])),
        "abstained": float(1 - answered.mean()),
        "abstained_by_reason": {str(code): count / n for code, count in sorted(refused.items(), key=str)},
        "accuracy_answered": float(right[answered].mean()) if answered.any() else None,
        "ood_refused": (refused["not_a_cell"] + refused["unfamiliar_microscope"]) / n,
        "images_per_second": result.images_per_second,
    }


def _per_class(outcomes: Sequence[Outcome], truth: Sequence[str], said: Sequence[str]) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    for label in sorted(set(truth)):
        own = [outcome for outcome in outcomes if outcome.label == label]
        hits = sum(t == s == label for t, s in zip(truth, said, strict=True))
        claimed = sum(s == label for s in said)
        low, high = wilson(hits, len(own))
        figures[label] = {
            "n": len(own),
            "sensitivity": hits / len(own),
            "sensitivity_low": low,
            "sensitivity_high": high,
            "ppv": hits / claimed if claimed else None,
            "f1": 2 * hits / (len(own) + claimed),
            "conformal_coverage": sum(label in outcome.prediction.conformal_set for outcome in own) / len(own),
        }
    return figures


def expected_calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins, weighted by their size (Naeini et al.
    2015).
    """
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = (abs(float(right[bins == b].sum() - confidence[bins == b].sum())) for b in range(_BINS))
    return float(sum(gaps)) / len(confidence)


def clusters_right(result: Run, clusters: Mapping[Path, str]) -> dict[str, int]:
    """Return how many clusters (originals) are right by the mean probability of their pictures, among the types
    present.
    """
    present = sorted({outcome.label for outcome in result.outcomes})
    sums: dict[str, NDArray[np.float64]] = {}
    truth: dict[str, str] = {}
    for outcome in result.outcomes:
        name = clusters[outcome.path]
        own = np.array([outcome.prediction.probabilities[label] for label in present])
        sums[name] = sums.get(name, np.zeros(len(present))) + own
        truth[name] = outcome.label
    return {"n": len(sums), "right": sum(present[int(total.argmax())] == truth[name] for name, total in sums.items())}
