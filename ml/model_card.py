"""The model card: what a bundle is, what it can say, and how well. Standard library only: the web process reads it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.errors import ModelUnavailable
from ml.labels import CELL_TYPES

FORMAT_VERSION = 2  # 1: without textures, and looked at from one side whatever the card says
_READABLE_FORMATS = (1, FORMAT_VERSION)
VIEWS = (1, 8)
PREPROCESSING_VERSION = "1"
ARTIFACTS = Path(__file__).resolve().parent / "artifacts"
CARD_FILE = "model_card.json"
MODEL_FILE = "model.tflite"
HEAD_FILE = "head.npz"
GATE_FILE = "gate.npz"

_MISSING = "The model is missing. Images stay queued until an administrator installs it."
_ALTERED = "The model's files were altered. Images stay queued until an administrator restores them."
_INCOMPATIBLE = "The installed model does not fit this version. Images stay queued until it is replaced."


@dataclass(frozen=True)
class OutOfDistribution:
    """The gate's limits: `distance`, `residual` and `strength` have score 1; beyond the score `far` it is no cell.

    The log odds of being no cell reach `far` at `refused_from`.
    """

    distance: float
    residual: float
    strength: float
    far: float
    refused_from: float


@dataclass(frozen=True)
class ModelCard:
    """What a bundle says about itself. Fractions are 0..1.

    `sha256` is that of the model file, `files` those of all files of the bundle. `labels` are in output order.
    `conformal_thresholds` and the keys of `per_class` metrics are cell types. `metrics` maps a data set's name to
    its figures, each with `n`, `accuracy`, `accuracy_low`, `accuracy_high`. `training` sums up recipe, data and
    split manifest. `views` is from how many sides the network looks at each cell: 1, or 8 (`ml/views.py`).
    """

    name: str
    version: str
    sha256: str
    files: Mapping[str, str]
    labels: tuple[str, ...]
    input_size: int
    preprocessing_version: str
    format_version: int
    temperature: float
    conformal_coverage: float
    conformal_thresholds: Mapping[str, float]
    ood: OutOfDistribution
    least_confidence: float
    metrics: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]
    limits: tuple[str, ...]
    views: int = 1

    def as_json(self) -> str:
        """The card as the text of `model_card.json`."""
        values = {**self.__dict__, "ood": self.ood.__dict__}
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def read_card(bundle: Path) -> ModelCard:
    """Read a bundle's card.

    Raises ModelUnavailable: `model_missing` without a card, `model_incompatible` for one of another format, of another
    preprocessing, with labels outside the vocabulary, or with a number of views that is neither 1 nor 8.
    """
    try:
        text = (bundle / CARD_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise ModelUnavailable("model_missing", _MISSING) from error
    try:
        card = _card_from(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable("model_incompatible", _INCOMPATIBLE) from error
    fits = card.format_version in _READABLE_FORMATS and card.preprocessing_version == PREPROCESSING_VERSION
    if not fits or not card.labels or not set(card.labels) <= set(CELL_TYPES) or card.views not in VIEWS:
        raise ModelUnavailable("model_incompatible", _INCOMPATIBLE)
    return card


def verify_bundle(bundle: Path) -> ModelCard:
    """Read a bundle's card and check every file that it names.

    Raises ModelUnavailable as `read_card` does, `model_missing` for a missing file, and `model_altered` for another
    content.
    """
    card = read_card(bundle)
    if not {MODEL_FILE, HEAD_FILE, GATE_FILE} <= set(card.files) or card.files[MODEL_FILE] != card.sha256:
        raise ModelUnavailable("model_incompatible", _INCOMPATIBLE)
    for name, expected in card.files.items():
        try:
            found = file_sha256(bundle / Path(name).name)
        except OSError as error:
            raise ModelUnavailable("model_missing", _MISSING) from error
        if found != expected:
            raise ModelUnavailable("model_altered", _ALTERED)
    return card


def shipped_bundle() -> Path:
    """Return the folder of the bundle that is used where none is named. Raises ModelUnavailable (`model_missing`)."""
    try:
        name = (ARTIFACTS / "SHIPPED").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ModelUnavailable("model_missing", _MISSING) from error
    if not name or not (ARTIFACTS / name).is_dir():
        raise ModelUnavailable("model_missing", _MISSING)
    return ARTIFACTS / name


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card_from(values: Mapping[str, Any]) -> ModelCard:
    return ModelCard(
        name=str(values["name"]),
        version=str(values["version"]),
        sha256=str(values["sha256"]),
        files={str(name): str(digest) for name, digest in values["files"].items()},
        labels=tuple(str(label) for label in values["labels"]),
        input_size=int(values["input_size"]),
        preprocessing_version=str(values["preprocessing_version"]),
        format_version=int(values["format_version"]),
        temperature=float(values["temperature"]),
        conformal_coverage=float(values["conformal_coverage"]),
        conformal_thresholds={str(label): float(value) for label, value in values["conformal_thresholds"].items()},
        ood=OutOfDistribution(**{name: float(values["ood"][name]) for name in OutOfDistribution.__dataclass_fields__}),
        least_confidence=float(values["least_confidence"]),
        metrics=dict(values["metrics"]),
        training=dict(values["training"]),
        limits=tuple(str(sentence) for sentence in values["limits"]),
        views=values.get("views", 1),
    )
