"""Bytes of a picture to a classification: the door through which the rest of the product uses the model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ml.conformal import conformal_sets
from ml.errors import ModelUnavailable
from ml.gate import Gate, UsualLimits, read_bank
from ml.heat_map import Head, heat_maps
from ml.images import decode
from ml.labels import display_name
from ml.locate import Box
from ml.model_card import GATE_FILE, HEAD_FILE, MODEL_FILE, ModelCard, verify_bundle
from ml.preprocess import Found, PreparedCell, prepare_cell, shown_part
from ml.runtime import Runtime
from ml.views import seen

__all__ = [
    "CellPrediction",
    "FoundLeukocyte",
    "LiteRTPredictor",
    "Predictor",
    "PreparedCell",
    "load_predictor",
    "softmax",
]

Floats = NDArray[np.float32]

_NO_CELL = {"not_a_cell", "no_leukocyte"}


@dataclass(frozen=True)
class FoundLeukocyte:
    """What the model says about one leukocyte of a field: `box` is (left, top, right, bottom) in pixels of the upright
    picture, the other fields are those of `CellPrediction`. It abstains where `label` is None.
    """

    box: Box
    label: str | None
    suggestion: str | None
    confidence: float
    reason_code: str | None
    reason: str | None


@dataclass(frozen=True)
class CellPrediction:
    """What the model says about one picture. Probabilities and `confidence` are calibrated fractions 0..1.

    `label` is None where the model abstains, `suggestion` is then its best guess, or None where it sees no cell.
    `reason_code` is None or one of `not_a_cell`, `no_leukocyte`, `unfamiliar_microscope`, `several_leukocytes`,
    `not_sure`; `reason` is its sentence. `ood_score` up to 1 is familiar. `box` is (left, top, right, bottom) in pixels
    of the upright picture, or None for the whole of it. `heat_map` is float32 (h, w) in 0..1 over the box, never blank,
    and None if it can't be had or would explain nothing. `leukocytes` are all that were found in a field, the most
    strongly stained first; a single-cell picture has none listed.
    """

    label: str | None
    suggestion: str | None
    confidence: float
    probabilities: dict[str, float]
    conformal_set: tuple[str, ...]
    abstained: bool
    reason_code: str | None
    reason: str | None
    ood_score: float
    box: Box | None
    heat_map: Floats | None
    duration_ms: float
    leukocytes: tuple[FoundLeukocyte, ...] = ()


class Predictor(Protocol):
    """Anything that classifies pictures as a bundle's card promises."""

    card: ModelCard

    def prepare(self, image: bytes, *, shown_side: int = 0) -> PreparedCell:
        """Decode, locate, cut and resize one picture; with `shown_side`, in px, `shown` is made too. Thread-safe.

        Raises UnreadableImage.
        """
        ...

    def predict(self, prepared: Sequence[PreparedCell]) -> list[CellPrediction]:
        """Classify prepared pictures, at least one, in one go."""
        ...


class LiteRTPredictor:
    """The serving implementation of `Predictor`."""

    def __init__(self, card: ModelCard, runtime: Runtime, head: Head, gate: Gate) -> None:
        self.card = card
        self.runtime = runtime
        self.head = head
        self.gate = gate

    def prepare(self, image: bytes, *, shown_side: int = 0) -> PreparedCell:
        """Decode, locate, cut and resize one picture; with `shown_side`, in px, `shown` is made too. Thread-safe.

        Raises UnreadableImage.
        """
        started = time.perf_counter()
        picture = decode(image)
        prepared = prepare_cell(picture, self.card.input_size)
        shown = shown_part(picture, prepared, shown_side) if shown_side else None
        return replace(prepared, shown=shown, prepare_ms=_milliseconds_since(started))

    def predict(self, prepared: Sequence[PreparedCell]) -> list[CellPrediction]:
        """Classify prepared pictures, at least one, and every leukocyte of theirs, in one go."""
        started = time.perf_counter()
        squares = np.stack([pixels for cell in prepared for pixels in (cell.pixels, *cell.further)])
        maps, texture = seen(self.runtime, squares, self.card.views)
        pooled = maps.mean(axis=(1, 2))
        # The head's own file decides, and not the copy inside the network: `adapt` fits the head anew.
        probabilities = softmax(self.head.logits(pooled) / np.float32(self.card.temperature))
        scores = self.gate.scores(self.gate.bank.judged(pooled, texture))
        thresholds = [self.card.conformal_thresholds[label] for label in self.card.labels]
        sets = conformal_sets(probabilities, thresholds)
        heats = heat_maps(maps, self.head, probabilities.argmax(axis=1).tolist())
        views = [_View(*seen) for seen in zip(probabilities, scores.tolist(), sets, heats, strict=True)]
        ends = np.cumsum([1 + len(cell.further) for cell in prepared]).tolist()
        shared_ms = _milliseconds_since(started) / len(prepared)
        return [
            self._prediction(cell, views[end - 1 - len(cell.further) : end], shared_ms)
            for cell, end in zip(prepared, ends, strict=True)
        ]

    def _prediction(self, cell: PreparedCell, views: "Sequence[_View]", shared_ms: float) -> CellPrediction:
        started = time.perf_counter()
        view, labels = views[0], self.card.labels
        code = self._reason_code(view, cell.found)
        is_cell = code not in _NO_CELL
        leukocytes = tuple(self._leukocyte(box, each) for box, each in zip(cell.leukocytes, views, strict=False))
        return CellPrediction(
            label=labels[view.best] if code is None else None,
            suggestion=labels[view.best] if is_cell else None,
            confidence=view.confidence,
            probabilities={label: float(p) for label, p in zip(labels, view.probabilities, strict=True)},
            conformal_set=tuple(labels[index] for index in view.ranked),
            abstained=code is not None,
            reason_code=code,
            reason=_sentence(code, [labels[index] for index in view.doubted], len(cell.leukocytes)),
            ood_score=view.score,
            box=cell.box,
            heat_map=view.heat if is_cell else None,
            duration_ms=cell.prepare_ms + shared_ms + _milliseconds_since(started),
            leukocytes=leukocytes,
        )

    def _leukocyte(self, box: Box, view: "_View") -> FoundLeukocyte:
        labels = self.card.labels
        code = self._reason_code(view, "one_leukocyte")
        return FoundLeukocyte(
            box=box,
            label=labels[view.best] if code is None else None,
            suggestion=labels[view.best] if code not in _NO_CELL else None,
            confidence=view.confidence,
            reason_code=code,
            reason=_sentence(code, [labels[index] for index in view.doubted], 1),
        )

    def _reason_code(self, view: "_View", found: Found) -> str | None:
        if view.score > self.gate.far:
            return "not_a_cell"
        if found == "no_leukocyte":
            return "no_leukocyte"
        if view.score > 1:
            return "unfamiliar_microscope"
        if found == "several_leukocytes":
            return "several_leukocytes"
        return "not_sure" if view.confidence < self.card.least_confidence else None


@dataclass(frozen=True)
class _View:
    """What the network says about one square of pixels; `ranked` are the class indices of the conformal set."""

    probabilities: Floats
    score: float
    ranked: list[int]
    heat: Floats | None

    @property
    def best(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())

    @property
    def doubted(self) -> list[int]:
        """The classes that it could be, the most probable first: at least two, even where one alone would keep the
        promise of the conformal set.
        """
        likely = {*self.ranked, *np.argsort(-self.probabilities)[:2].tolist()}
        return sorted(likely, key=lambda index: -self.probabilities[index])


def load_predictor(bundle: Path, *, threads: int = 2) -> LiteRTPredictor:
    """Verify a bundle and load it; `threads` is the number of the runtime's threads. Raises ModelUnavailable."""
    card = verify_bundle(bundle)
    try:
        with np.load(bundle / HEAD_FILE, allow_pickle=False) as arrays:
            head = Head(**{name: arrays[name] for name in ("w1", "b1", "w2", "b2")})
        bank = read_bank(bundle / GATE_FILE)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable(
            "model_incompatible", "The installed model's files can't be read by this version."
        ) from error
    limits = UsualLimits(card.ood.distance, card.ood.residual, card.ood.strength)
    gate = Gate(bank, limits, card.ood.far, card.ood.refused_from)
    return LiteRTPredictor(card, Runtime.of_file(bundle / MODEL_FILE, threads), head, gate)


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Return probabilities, float32 (n, classes), of logits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def _sentence(code: str | None, doubted: Sequence[str], leukocytes: int) -> str | None:
    """The sentence of a reason code; `doubted` are the types that it could be, the most probable first."""
    names = [display_name(label).lower() for label in doubted]
    refused = "This does not look like the images the model was tested on ({}). No class is given."
    match code:
        case "not_a_cell":
            return refused.format("it does not look like a stained blood cell")
        case "no_leukocyte":
            return refused.format("no stained cell was found in it")
        case "unfamiliar_microscope":
            return (
                "This looks like a microscope or stain that the model was not tested on. "
                f"Its guess is {names[0]}. Please classify."
            )
        case "several_leukocytes":
            return (
                f"There are {leukocytes} white cells in this picture. "
                f"The best stained could be {names[0]}. Please classify."
            )
        case "not_sure":
            return f"The model is not sure. It could be {', '.join(names[:-1])} or {names[-1]}. Please classify."
        case _:
            return None
