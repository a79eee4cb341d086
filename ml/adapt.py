"""A bundle for another microscope, from few labelled cells of it: head, calibration and gate are fitted anew.

The network stays as it is. Whether the corrected head or the old one is kept, and whether the new bundle looks at each
cell from one side or from eight, is decided by cross-validation within the labelled cells, and every accuracy that
the new card gives of this microscope comes from there too. How many cells are familiar is counted among those it was
fitted to.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.calibrate import look
from ml.errors import UnusableData
from ml.gate import save_bank
from ml.head_correction import FOLDS, REPEATS, LocalCells
from ml.intervals import wilson
from ml.junk import drawn_junk
from ml.local_cells import LabelledPictures, read_pictures
from ml.local_fit import AS_IT_WAS, Adaptation, Served, Way, adapt
from ml.model_card import (
    CARD_FILE,
    FORMAT_VERSION,
    GATE_FILE,
    HEAD_FILE,
    ModelCard,
    OutOfDistribution,
    file_sha256,
    read_card,
)
from ml.predictor import load_predictor
from ml.progress import Progress, say
from ml.runtime import Runtime
from ml.source_features import load as load_source_features
from ml.views import ALL, ONE, turned, zoomed

Floats = NDArray[np.float32]

FEWEST_CELLS = 20
METRICS_KEY = "local_cells_cross_validated"
_DRAWN_JUNK = 120
_JUNK_SEED = 2026  # not that of the junk which the gate was fitted to


_REPORTED = {
    "zero_shot_head": AS_IT_WAS,
    "adapted_head": Way(is_corrected=True, views=ONE),
    "adapted_head_eight_views": Way(is_corrected=True, views=ALL),
}
_MEASURED_WITH_THE_OLD_GATE = {"junk", "fields", "heat_maps"}


@dataclass(frozen=True)
class Opened:
    """A bundle made ready to be adapted: its card, its network, and the parts that are fitted anew."""

    card: ModelCard
    runtime: Runtime
    served: Served


def adapt_bundle(model: Path, data: Path, out: Path, views: int | None = None) -> dict[str, Any]:
    """Adapt the bundle `model` to the microscope of the class folders in `data`, and write the new bundle to `out`.

    Returns what was done, JSON-ready: `bundle`, `name`, `version`, `n`, `kept` ("adapted head" or "zero-shot head"),
    `views` (1 or 8; the argument decides beforehand), `network_ms` (processor time of the network a cell, then and
    now), the cross-validated `before` and `after`, `per_class`, `familiar` and `junk_refused` before and after,
    `seconds`. Raises UnusableData for pictures or an `out` that can't be used, ModelUnavailable for a bundle that
    can't.
    """
    started = time.monotonic()
    refuse_unless_empty(out)
    pictures = read_pictures(data, read_card(model).labels)
    refuse_too_few(pictures)
    opened = open_bundle(model)
    watched = time.process_time()
    cells = see(opened, pictures)
    looked = len(cells.labels) * (cells.pooled.shape[1] + cells.zoomed.shape[1])
    view_ms = 1000 * (time.process_time() - watched) / looked
    adaptation = adapt(opened.served, cells, see_junk(opened), views)
    price = {"before": round(view_ms, 1), "after": round(view_ms * adaptation.kept.views, 1)}
    figures = {**figures_of(adaptation, opened.card.labels, cells.labels), "network_ms": price}
    seconds = round(time.monotonic() - started, 1)
    summary = {**figures, "seconds": seconds, "source_cells": opened.served.source_cells}
    card = write_bundle(model, out, opened.card, adaptation, pictures, summary)
    return {"bundle": str(out), "name": card.name, "version": card.version, **summary}


def open_bundle(model: Path) -> Opened:
    """Verify and load a bundle. Raises ModelUnavailable, and UnusableData for one that is adapted already."""
    predictor = load_predictor(model)
    card = predictor.card
    if "adapted" in card.training:
        raise UnusableData("This bundle is adapted already; adapt the one that it was made from.")
    source = load_source_features(model)
    if source is None:
        say("The bundle holds no features of its training cells: types without labelled cells keep their old scores.")
    # The predictor's parts are what is served, so they are what is fitted anew.
    served = Served(predictor.head, predictor.gate, card.temperature, card.least_confidence, source)
    return Opened(card, predictor.runtime, served)


def see(opened: Opened, pictures: LabelledPictures) -> LocalCells:
    """Run the network on every view of the pictures."""
    pooled, judged = see_views(opened, pictures.views, "features")
    # One picture at a time: all of them at sixteen scales take a gigabyte for a thousand.
    each = Progress("other scales", len(pictures.views)).each(pictures.views)
    scales = np.stack([opened.runtime.run(zoomed(own[0])).maps.mean(axis=(1, 2)) for own in each])
    return LocalCells(pooled, scales, judged, pictures.labels, pictures.groups)


def see_junk(opened: Opened) -> Floats:
    """Return what the gate judges drawn pictures of no cell by (n, 8, d): it must go on refusing them."""
    junk = drawn_junk(_DRAWN_JUNK, opened.card.input_size, _JUNK_SEED)
    return see_views(opened, np.stack([turned(picture) for picture in junk]), "junk")[1]


def see_views(opened: Opened, views: NDArray[np.uint8], what: str) -> tuple[Floats, Floats]:
    """Return pooled features (n, 8, 1280), and what the gate judges by (n, 8, d), of turned squares (n, 8, S, S, 3)."""
    seen = look(opened.runtime, views.reshape(-1, *views.shape[2:]), what)
    judged = opened.served.gate.bank.judged(seen.pooled, seen.texture)
    return seen.pooled.reshape(*views.shape[:2], -1), judged.reshape(*views.shape[:2], -1)


def figures_of(adaptation: Adaptation, labels: tuple[str, ...], truth: NDArray[np.int64]) -> dict[str, Any]:
    """Return the figures of an adaptation, JSON-ready; shares are fractions 0..1."""
    n = len(truth)

    def share(hits: NDArray[np.float64]) -> dict[str, Any]:
        low, high = wilson(round(float(hits.sum())), n)
        return {"n": n, "accuracy": float(hits.mean()), "accuracy_low": low, "accuracy_high": high}

    return {
        "n": n,
        "kept": "adapted head" if adaptation.kept.is_corrected else "zero-shot head",
        "views": adaptation.kept.views,
        "before": share(adaptation.hits_before),
        "after": share(adaptation.hits_kept),
        "cross_validation": {
            "folds": FOLDS,
            "repeats": REPEATS,
            **{name: share(adaptation.hits[way]) for name, way in _REPORTED.items()},
        },
        "per_class": {
            labels[index]: {
                "n": int((truth == index).sum()),
                "sensitivity_before": float(adaptation.hits_before[truth == index].mean()),
                "sensitivity_after": float(adaptation.hits_kept[truth == index].mean()),
            }
            for index in np.unique(truth).tolist()
        },
        "familiar": {"n": n, **adaptation.familiar},
        "junk_refused": {"n": _DRAWN_JUNK, **adaptation.junk_refused},
    }


def refuse_unless_empty(out: Path) -> None:
    """Raise UnusableData unless `out` is a new or an empty folder."""
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UnusableData(f"{out.name!r} must be a new or an empty folder for the adapted bundle.")
    except OSError as error:
        raise UnusableData(f"The folder {out.name!r} can't be read.") from error


def refuse_too_few(pictures: LabelledPictures) -> None:
    """Raise UnusableData for fewer than 20 cells, or cells of one type alone."""
    n = len(pictures.labels)
    if n < FEWEST_CELLS:
        raise UnusableData(f"Adapting takes at least {FEWEST_CELLS} different labelled cells; this folder has {n}.")
    if len(set(pictures.labels.tolist())) < 2:
        raise UnusableData("Adapting takes cells of at least two types; this folder has one.")


def write_bundle(
    model: Path,
    out: Path,
    card: ModelCard,
    adaptation: Adaptation,
    pictures: LabelledPictures,
    summary: Mapping[str, Any],
) -> ModelCard:
    """Write the adapted bundle, all of it or nothing, and return its card. Raises UnusableData where it can't."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=out.parent) as beside:
            bundle = Path(beside) / "bundle"
            bundle.mkdir()
            for name in card.files:
                shutil.copyfile(model / name, bundle / name)
            np.savez(bundle / HEAD_FILE, allow_pickle=False, **adaptation.head.__dict__)
            save_bank(adaptation.gate.bank, bundle / GATE_FILE)
            files = {name: file_sha256(bundle / name) for name in card.files}
            adapted = adapted_card(replace(card, files=files), adaptation, pictures, summary)
            (bundle / CARD_FILE).write_text(adapted.as_json(), encoding="utf-8")
            bundle.replace(out)
    except OSError as error:
        raise UnusableData(f"The adapted bundle could not be written to {out.name!r}.") from error
    return adapted


def adapted_card(
    card: ModelCard, adaptation: Adaptation, pictures: LabelledPictures, summary: Mapping[str, Any]
) -> ModelCard:
    """Return the card of an adapted bundle; `card` is the old one with the new files. It names no file of a picture."""
    by_type: dict[str, list[str]] = {}
    for digest, label in sorted(zip(pictures.digests, pictures.labels.tolist(), strict=True)):
        by_type.setdefault(card.labels[label], []).append(digest)
    counts = ", ".join(f"{len(by_type[label])} {label}" for label in card.labels if label in by_type)
    untried = ", ".join(label for label in card.labels if label not in by_type)
    told = "".join(f"{label} {digest}\n" for label, digests in sorted(by_type.items()) for digest in digests)
    told += f"{card.files[HEAD_FILE]} {card.files[GATE_FILE]} {adaptation.kept.views}\n"
    limits = [
        f"Adapted to one microscope with {summary['n']} labelled cells ({counts}). Its figure is by cross-validation "
        f"within them, and the figures of version {card.version} do not hold for it.",
    ]
    if untried:
        limits.append(f"Not tried on that microscope, because no cell was labelled so: {untried}.")
    after = summary["after"]
    still_true = {key: value for key, value in card.training.items() if key not in _MEASURED_WITH_THE_OLD_GATE}
    return replace(
        card,
        format_version=FORMAT_VERSION,
        version=f"{card.version}+{hashlib.sha256(told.encode()).hexdigest()[:8]}",
        temperature=adaptation.temperature,
        conformal_thresholds=dict(zip(card.labels, adaptation.conformal_thresholds, strict=True)),
        least_confidence=adaptation.least_confidence,
        ood=OutOfDistribution(
            **adaptation.gate.limits.__dict__, far=adaptation.gate.far, refused_from=adaptation.gate.refused_from
        ),
        metrics={METRICS_KEY: {**after, "cross_validated": True}},
        training={**still_true, "adapted": {"of": card.version, **summary, "cells_sha256": by_type}},
        limits=(*card.limits, *limits),
        views=adaptation.kept.views,
    )
