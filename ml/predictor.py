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
from ml.gate import FeatureBank, Gate, UsualLimits
from ml.heat_map import Head, heat_map
from ml.images import decode
from ml.labels import display_name
from ml.locate import Box
from ml.model_card import GATE_FILE, HEAD_FILE, MODEL_FILE, ModelCard, verify_bundle
from ml.preprocess import PreparedCell, prepare_cell
from ml.runtime import Runtime

__all__ = ["CellPrediction", "LiteRTPredictor", "Predictor", "PreparedCell", "load_predictor", "softmax"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CellPrediction:
    """What the model says about one picture. Probabilities and `confidence` are calibrated fractions 0..1.

    `label` is None where the model abstains, `suggestion` is then its best guess, or None where it sees no cell.
    `reason_code` is None or one of `not_a_cell`, `no_leukocyte`, `unfamiliar_microscope`, `several_leukocytes`,
    `not_sure`; `reason` is its sentence. `ood_score` up to 1 is familiar. `box` is (left, top, right, bottom) in pixels
    of the upright picture, or None for the whole of it. `heat_map` is float32 (h, w) in 0..1 over the box, never blank,
    and None if it can't be had or would explain nothing.
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


class Predictor(Protocol):
    """Anything that classifies pictures as a bundle's card promises."""

    card: ModelCard

    def prepare(self, image: bytes) -> PreparedCell:
        """Decode, locate, cut and resize one picture. Thread-safe. Raises UnreadableImage."""
        ...

    def predict(self, prepared: Sequence[PreparedCell]) -> list[CellPrediction]:
        """Classify prepared pictures, at least one, in one call of the runtime."""
        ...


class LiteRTPredictor:
    """The serving implementation of `Predictor`."""

    def __init__(self, card: ModelCard, runtime: Runtime, head: Head, gate: Gate) -> None:
        self.card = card
        self._runtime = runtime
        self._head = head
        self._gate = gate

    def prepare(self, image: bytes) -> PreparedCell:
        """Decode, locate, cut and resize one picture. Thread-safe. Raises UnreadableImage."""
        started = time.perf_counter()
        prepared = prepare_cell(decode(image), self.card.input_size)
        return replace(prepared, prepare_ms=_milliseconds_since(started))

    def predict(self, prepared: Sequence[PreparedCell]) -> list[CellPrediction]:
        """Classify prepared pictures, at least one, in one call of the runtime."""
        started = time.perf_counter()
        maps, logits = self._runtime.run(np.stack([cell.pixels for cell in prepared]))
        probabilities = softmax(logits / np.float32(self.card.temperature))
        scores = self._gate.scores(maps.mean(axis=(1, 2)))
        thresholds = [self.card.conformal_thresholds[label] for label in self.card.labels]
        sets = conformal_sets(probabilities, thresholds)
        shared_ms = _milliseconds_since(started) / len(prepared)
        return [
            self._prediction(*seen, shared_ms) for seen in zip(prepared, maps, probabilities, scores, sets, strict=True)
        ]

    def _prediction(
        self,
        cell: PreparedCell,
        feature_map: Floats,
        probabilities: Floats,
        score: float,
        ranked: list[int],
        shared_ms: float,
    ) -> CellPrediction:
        started = time.perf_counter()
        labels = self.card.labels
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        code = self._reason_code(cell, confidence, float(score))
        is_cell = code not in {"not_a_cell", "no_leukocyte"}
        # A doubt names at least two types, even where one alone would keep the promise.
        doubted = sorted({*ranked, *np.argsort(-probabilities)[:2].tolist()}, key=lambda index: -probabilities[index])
        heat = heat_map(feature_map, self._head, best) if is_cell else None
        return CellPrediction(
            label=labels[best] if code is None else None,
            suggestion=labels[best] if is_cell else None,
            confidence=confidence,
            probabilities={label: float(p) for label, p in zip(labels, probabilities, strict=True)},
            conformal_set=tuple(labels[index] for index in ranked),
            abstained=code is not None,
            reason_code=code,
            reason=_sentence(code, [labels[index] for index in doubted], len(cell.leukocytes)),
            ood_score=float(score),
            box=cell.box,
            heat_map=heat,
            duration_ms=cell.prepare_ms + shared_ms + _milliseconds_since(started),
        )

    def _reason_code(self, cell: PreparedCell, confidence: float, score: float) -> str | None:
        if score > self._gate.far:
            return "not_a_cell"
        if cell.found == "no_leukocyte":
            return "no_leukocyte"
        if score > 1:
            return "unfamiliar_microscope"
        if cell.found == "several_leukocytes":
            return "several_leukocytes"
        return "not_sure" if confidence < self.card.least_confidence else None


def load_predictor(bundle: Path, *, threads: int = 2) -> LiteRTPredictor:
    """Verify a bundle and load it; `threads` is the number of the runtime's threads. Raises ModelUnavailable."""
    card = verify_bundle(bundle)
    try:
        with np.load(bundle / HEAD_FILE, allow_pickle=False) as arrays:
            head = Head(**{name: arrays[name] for name in ("w1", "b1", "w2", "b2")})
        with np.load(bundle / GATE_FILE, allow_pickle=False) as arrays:
            bank = FeatureBank(
                **{name: arrays[name] for name in ("mean", "directions", "whitening", "centres", "refusal")}
            )
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
            return refused.format("no stained white cell was found in this field")
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
