"""Figures of a model on labelled pictures, through the same door that serves them."""

import os
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
from ml.prevalence import predictive_values
from ml.progress import Progress

BATCH = 32
_BINS = 15
_MOST_CLUSTERS = 40
_MOST_MISTAKES = 12
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


def report(result: Run, clusters: Mapping[Path, str] | None = None, *, root: Path | None = None) -> dict[str, Any]:
    """Return the figures of a run, JSON-ready, all shares as fractions 0..1.

    `accuracy`, `accuracy_restricted` (argmax among the types that are present), `macro_f1`, `ece` and `reliability`
    are over the argmax of every readable picture, `accuracy_answered` over the `answered` pictures on which the model
    did not abstain. Their intervals are Wilson's, or by bootstrap over `clusters` (path -> cluster: slide, photograph)
    where given, and `clusters` then lists the largest with n and right. Per class: sensitivity and conformal coverage
    with Wilson's intervals, and the predictive value at the shares of the types in adult blood (`ml.prevalence` states
    the assumptions), None for a type that has no such share. `worst_mistakes` are the most confident wrong answers,
    with paths below `root` (where not given: below the folder that holds all the pictures). Raises UnusableData if no
    picture could be read.
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
    confusion = {label: dict(Counter(s for t, s in zip(truth, said, strict=True) if t == label)) for label in present}
    per_class = _per_class(outcomes, confusion)
    names = np.array([clusters[outcome.path] for outcome in outcomes]) if clusters else None

    def interval(hits: NDArray[np.bool_], among: NDArray[np.bool_] | None = None) -> tuple[float, float]:
        chosen = np.ones(n, bool) if among is None else among
        if names is None:
            return wilson(int(hits[chosen].sum()), int(chosen.sum()))
        return clustered(hits[chosen], names[chosen].tolist())

    low, high = interval(right)
    restricted_low, restricted_high = interval(restricted)
    answered_low, answered_high = interval(right, answered)
    refused = Counter(prediction.reason_code for prediction in predictions if prediction.abstained)
    confidence = np.array([prediction.confidence for prediction in predictions])
    least = min(present, key=lambda label: float(per_class[label]["conformal_coverage"]))
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
        "confusion": confusion,
        "ece": expected_calibration_error(confidence, right),
        "reliability": reliability(confidence, right),
        "conformal_coverage": float(np.mean([o.label in o.prediction.conformal_set for o in outcomes])),
        "conformal_coverage_least": {"label": least, **_only(per_class[least], "n", "conformal_coverage")},
        "conformal_mean_size": float(np.mean([len(p.conformal_set) for p in predictions])),
        "abstained": float(1 - answered.mean()),
        "abstained_by_reason": {str(code): count / n for code, count in sorted(refused.items(), key=str)},
        "answered": int(answered.sum()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else None,
        "accuracy_answered_low": answered_low if answered.any() else None,
        "accuracy_answered_high": answered_high if answered.any() else None,
        "ood_refused": (refused["not_a_cell"] + refused["unfamiliar_microscope"]) / n,
        "images_per_second": result.images_per_second,
        "clusters_total": None if names is None else len(set(names.tolist())),
        "clusters": None if names is None else _largest_clusters(names.tolist(), right),
        "worst_mistakes": _worst_mistakes(outcomes, root),
    }


def _only(figures: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: figures[name] for name in names}


def _per_class(outcomes: Sequence[Outcome], confusion: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, Any]]:
    claims: Counter[str] = Counter()
    for row in confusion.values():
        claims.update(row)
    in_blood = predictive_values(confusion)
    figures: dict[str, dict[str, Any]] = {}
    for label, row in confusion.items():
        hits, n = row.get(label, 0), sum(row.values())
        covered = sum(label in o.prediction.conformal_set for o in outcomes if o.label == label)
        low, high = wilson(hits, n)
        covered_low, covered_high = wilson(covered, n)
        value = in_blood[label]
        figures[label] = {
            "n": n,
            "sensitivity": hits / n,
            "sensitivity_low": low,
            "sensitivity_high": high,
            "ppv": hits / claims[label] if claims[label] else None,
            "prevalence": value.prevalence if value else None,
            "ppv_at_prevalence": value.ppv if value else None,
            "ppv_at_prevalence_low": value.low if value else None,
            "ppv_at_prevalence_high": value.high if value else None,
            "f1": 2 * hits / (n + claims[label]),
            "conformal_coverage": covered / n,
            "conformal_coverage_low": covered_low,
            "conformal_coverage_high": covered_high,
        }
    return figures


def _largest_clusters(names: Sequence[str], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The 40 largest clusters, the largest first, with their number of pictures and how many are right."""
    sizes = Counter(names)
    hits = Counter(name for name, hit in zip(names, right, strict=True) if hit)
    ordered = sorted(sizes, key=lambda name: (-sizes[name], name))[:_MOST_CLUSTERS]
    return [{"name": name, "n": sizes[name], "right": hits[name]} for name in ordered]


def _worst_mistakes(outcomes: Sequence[Outcome], root: Path | None) -> list[dict[str, Any]]:
    """The 12 most confident wrong answers, those that were not withheld first."""
    wrong = [outcome for outcome in outcomes if outcome.argmax != outcome.label]
    wrong.sort(key=lambda o: (o.prediction.abstained, -o.prediction.confidence, str(o.path)))
    base = root or Path(os.path.commonpath([outcome.path.parent for outcome in outcomes]))
    return [
        {
            # A path elsewhere tells of this machine: only its name is given.
            "path": (o.path.relative_to(base) if o.path.is_relative_to(base) else Path(o.path.name)).as_posix(),
            "label": o.label,
            "said": o.argmax,
            "confidence": o.prediction.confidence,
            "abstained": o.prediction.abstained,
        }
        for o in wrong[:_MOST_MISTAKES]
    ]


def _bins(confidence: NDArray[np.floating]) -> NDArray[np.int64]:
    return np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)


def reliability(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the reliability diagram: for each of 15 equal bins its bounds, n, mean confidence and accuracy (None where
    it is empty).
    """
    bins = _bins(confidence)
    diagram: list[dict[str, Any]] = []
    for number in range(_BINS):
        inside = bins == number
        filled = bool(inside.any())
        diagram.append(
            {
                "low": number / _BINS,
                "high": (number + 1) / _BINS,
                "n": int(inside.sum()),
                "confidence": float(confidence[inside].mean()) if filled else None,
                "accuracy": float(right[inside].mean()) if filled else None,
            }
        )
    return diagram


def expected_calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins, weighted by their size (Naeini et al.
    2015).
    """
    bins = _bins(confidence)
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
