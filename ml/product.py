"""The product's model from pictures to bundle: train, export, calibrate, write the card, evaluate on what was held
out.
"""

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ml.boxes import field_report
from ml.calibrate import Calibration, Restained, SeenCells, calibrate, compress, look, restained_views
from ml.data_folder import WEIGHTS
from ml.dataset import LabelledCell, product_cells, read_class_folders, read_manifest, write_manifest
from ml.errors import UnusableData
from ml.evaluate import classify, clusters_right, report, run
from ml.examples import Examples, load_examples
from ml.gate import save_bank
from ml.junk import drawn_junk
from ml.junk_trial import junk_trial
from ml.labels import CELL_TYPES
from ml.model_card import (
    CARD_FILE,
    FORMAT_VERSION,
    GATE_FILE,
    HEAD_FILE,
    MODEL_FILE,
    PREPROCESSING_VERSION,
    ModelCard,
    OutOfDistribution,
    file_sha256,
    read_card,
    verify_bundle,
)
from ml.originals import test_photographs
from ml.predictor import CellPrediction, Predictor, load_predictor
from ml.preprocess import INPUT_SIZE
from ml.progress import say
from ml.recipe import Recipe
from ml.runtime import Runtime
from ml.source_features import SOURCE_FEATURES_FILE, choose, save
from ml.staging import staged

NAME = "hematovision-mobilenetv2"
MANIFEST_FILE = "manifest.csv.gz"
WEIGHTS_FILE = "network.weights.h5"
_BANK_PER_GROUP = 300
_RESTAINED_EVERY = 4
_DRAWN_JUNK = 3200
_MAPS_EVERY = 10
_MAPS_WANTED = 0.95
_LIMITS = (
    "Not a medical device, not cleared by any regulator. For trained reviewers; not for diagnosis.",
    "Knows only the cell types on this card. Blasts, reactive lymphocytes, plasma cells and parasites are not "
    "recognised and may be called by a familiar name.",
    "Accuracy on other stains and microscopes is unknown and usually lower: validate locally first. Most of their "
    "cells are called unfamiliar and get no class before the model is adapted.",
    "Figures on PBC are optimistic: the set has no donor ids, so cells of one person are on both sides of the split.",
    "Figures on Raabin are of slides whose months other slides of the training are of: a laboratory that it never saw "
    "is harder. Most eosinophils of the set are of one slide, which is trained on, and basophils of four sessions with "
    "other imaging.",
    "Kaggle figures rest on 71 photographs of one microscope, four of them of monocytes.",
)


def train_product(
    data: Path,
    folder: Path,
    version: str,
    recipe: Recipe,
    weights: Path | None = None,
    leave_out: str | None = None,
) -> ModelCard:
    """Train on `data`, and write a complete bundle (and the training log) to `folder`. Returns its card.

    Nothing of the source `leave_out` is seen in training or calibration; all of PBC or Raabin, and TEST of Kaggle, is
    then tested on: how the recipe does on a microscope that it never saw.
    Raises UnusableData for pictures or weights that can't be used.
    """
    weights = weights or data / WEIGHTS
    if not weights.is_file():
        raise UnusableData("The ImageNet weights are missing from the data folder; give them with --weights.")
    refuse_without_fields(data)
    cells = without_source(product_cells(data), leave_out)
    labels = labels_of(cells)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.csv"
    manifest_sha256 = write_manifest(cells, data, manifest)
    compress(manifest, folder / MANIFEST_FILE)
    manifest.unlink()
    # Here, after what is quickly refused; and a bundle is calibrated again without TensorFlow.
    from ml.export import export_network
    from ml.train import train_network

    training, validation = (load_examples(of_part(cells, part), labels) for part in ("train", "validation"))
    network, seconds = train_network(training, validation, len(labels), recipe, weights, folder)
    summary = {
        "recipe": recipe.as_dict(),
        "seconds": round(seconds),
        "sources": count_cells(cells),
        "manifest": MANIFEST_FILE,
        "manifest_sha256": manifest_sha256,
        "backbone": "MobileNetV2 alpha 1.0, ImageNet weights",
        "python": platform.python_version(),
        **({"leave_out": leave_out} if leave_out else {}),
    }
    export_network(network, folder)
    network.save_weights(str(folder / WEIGHTS_FILE))
    card = write_calibrated(folder, version, labels, training, validation, summary)
    return write_card(folder, measured(card, load_predictor(folder), cells, data))


def export_again(folder: Path) -> ModelCard:
    """Write the serving files anew from the Keras weights beside them. Raises UnusableData or ModelUnavailable."""
    from ml.export import export_network
    from ml.network import build_network

    card = read_card(folder)
    refuse_adapted(card)
    if not (folder / WEIGHTS_FILE).is_file():
        raise UnusableData("This folder holds no training weights, so there is nothing to export.")
    network = build_network(len(card.labels), card.input_size, None)
    network.load_weights(str(folder / WEIGHTS_FILE))
    export_network(network, folder)
    files = {name: file_sha256(folder / name) for name in card.files}
    return write_card(folder, replace(card, files=files, sha256=files[MODEL_FILE]))


def calibrate_again(folder: Path, data: Path) -> ModelCard:
    """Fit a bundle's calibration anew on its own validation part, from its manifest, and evaluate it. Raises
    UnusableData or ModelUnavailable.
    """
    card = verify_bundle(folder)
    refuse_adapted(card)
    refuse_without_fields(data)
    cells = read_manifest(folder / MANIFEST_FILE, data)
    training, validation = (load_examples(of_part(cells, part), card.labels) for part in ("train", "validation"))
    with staged(folder) as fresh:
        for name in card.files:
            shutil.copyfile(folder / name, fresh / name)
        uncounted = write_calibrated(fresh, card.version, card.labels, training, validation, card.training)
        return write_card(fresh, measured(uncounted, load_predictor(fresh), cells, data))


def refuse_without_fields(data: Path) -> None:
    """Raise UnusableData where the whole fields are missing that a model is tested on at the end."""
    if not (data / "bccd" / "labels.csv").is_file() or not (data / "bccd" / "JPEGImages").is_dir():
        raise UnusableData("The BCCD photographs with their labels.csv are missing from the data folder.")


def refuse_adapted(card: ModelCard) -> None:
    """Raise UnusableData for an adapted bundle: its head is not the one inside its network."""
    if "adapted" in card.training:
        raise UnusableData("This bundle was adapted to a microscope; make it again with `adapt`.")


def labels_of(cells: Sequence[LabelledCell]) -> tuple[str, ...]:
    """Return the cell types that occur, in the order of the vocabulary."""
    present = {cell.label for cell in cells}
    return tuple(label for label in CELL_TYPES if label in present)


def of_part(cells: Sequence[LabelledCell], part: str, source: str | None = None) -> list[LabelledCell]:
    """Return the cells of one part, of one source where it is given."""
    return [cell for cell in cells if cell.part == part and source in (None, cell.source)]


def without_source(cells: Sequence[LabelledCell], source: str | None) -> list[LabelledCell]:
    """Return the cells with every one of a source moved to the test part. Raises UnusableData for an unknown source."""
    if source not in (None, *(cell.source for cell in cells)):
        raise UnusableData(f"There is no training source {source!r}.")
    return [replace(cell, part="test") if cell.source == source else cell for cell in cells]


def count_cells(cells: Sequence[LabelledCell]) -> dict[str, dict[str, int]]:
    """Return the number of pictures of each source and part."""
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        own = counts.setdefault(cell.source, {})
        own[cell.part] = own.get(cell.part, 0) + 1
    return counts


def write_calibrated(
    folder: Path,
    version: str,
    labels: tuple[str, ...],
    training: Examples,
    validation: Examples,
    summary: Mapping[str, Any],
) -> ModelCard:
    """Calibrate the exported network in `folder` and write the gate and the card, without metrics yet."""
    runtime = Runtime.of_file(folder / MODEL_FILE)
    bank = sample_for_bank(training)
    bank_seen = cells_seen(runtime, bank, "bank")
    calibration = calibrate(
        bank_seen,
        cells_seen(runtime, validation, "validation"),
        Restained(
            look(runtime, restained_views(bank.scenes[::_RESTAINED_EVERY], INPUT_SIZE), "restained bank").texture,
            look(runtime, restained_views(validation.scenes, INPUT_SIZE, seed=12), "restained validation").texture,
        ),
        look(runtime, np.stack(drawn_junk(_DRAWN_JUNK, INPUT_SIZE)), "junk").texture,
    )
    save_bank(calibration.gate.bank, folder / GATE_FILE)
    save(choose(bank_seen.pooled, bank_seen.labels, bank_seen.sources), folder)
    card = make_card(folder, version, labels, calibration, summary)
    return write_card(folder, card)


def cells_seen(runtime: Runtime, examples: Examples, what: str) -> SeenCells:
    """Return what the network makes of labelled cells as they are served."""
    seen = look(runtime, examples.views(), what)
    return SeenCells(seen.pooled, seen.logits, seen.texture, examples.labels, examples.sources)


def sample_for_bank(training: Examples, seed: int = 5) -> Examples:
    """Return at most 300 pictures of each cell type of each source."""
    random = np.random.default_rng(seed)
    groups = np.array([f"{source}:{label}" for source, label in zip(training.sources, training.labels, strict=True)])
    chosen: list[int] = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        chosen += [int(i) for i in random.permutation(members)[:_BANK_PER_GROUP]]
    return Examples(
        [training.scenes[i] for i in chosen], training.labels[chosen], [training.sources[i] for i in chosen]
    )


def make_card(
    folder: Path, version: str, labels: tuple[str, ...], calibration: Calibration, summary: Mapping[str, Any]
) -> ModelCard:
    """Return the card of the files in `folder`."""
    names = [
        name
        for name in (MODEL_FILE, HEAD_FILE, GATE_FILE, SOURCE_FEATURES_FILE, MANIFEST_FILE)
        if (folder / name).exists()
    ]
    files = {name: file_sha256(folder / name) for name in names}
    return ModelCard(
        name=NAME,
        version=version,
        sha256=files[MODEL_FILE],
        files=files,
        labels=labels,
        input_size=INPUT_SIZE,
        preprocessing_version=PREPROCESSING_VERSION,
        format_version=FORMAT_VERSION,
        temperature=calibration.temperature,
        conformal_coverage=0.95,
        conformal_thresholds=dict(zip(labels, calibration.conformal_thresholds, strict=True)),
        ood=OutOfDistribution(
            **calibration.gate.limits.__dict__, far=calibration.gate.far, refused_from=calibration.gate.refused_from
        ),
        least_confidence=calibration.least_confidence,
        metrics={},
        training=summary,
        limits=_LIMITS,
    )


def write_card(folder: Path, card: ModelCard) -> ModelCard:
    """Write the card into its bundle, and return it."""
    (folder / CARD_FILE).write_text(card.as_json(), encoding="utf-8")
    return card


def measured(card: ModelCard, predictor: Predictor, cells: Sequence[LabelledCell], data: Path) -> ModelCard:
    """Return the card with the figures of everything that was not trained on: cells, whole fields, what is no cell."""
    bccd = data / "bccd"
    found = {
        "junk": junk_trial(predictor, data),
        "fields": field_report(predictor, bccd / "JPEGImages", bccd / "Annotations", bccd / "labels.csv"),
        "heat_maps": heat_map_share(predictor, cells) >= _MAPS_WANTED,
    }
    return replace(card, metrics=held_out_metrics(predictor, cells, data), training={**card.training, **found})


def heat_map_share(predictor: Predictor, cells: Sequence[LabelledCell]) -> float:
    """Return the share of named validation cells, 0..1, that come with a heat map."""
    paths = [cell.path for cell in of_part(cells, "validation")][::_MAPS_EVERY]
    answers = [answer for _, answer in classify(predictor, paths) if isinstance(answer, CellPrediction)]
    named = [answer.heat_map is not None for answer in answers if answer.label is not None]
    return sum(named) / max(len(named), 1)


def held_out_metrics(predictor: Predictor, cells: Sequence[LabelledCell], data: Path) -> dict[str, dict[str, Any]]:
    """Return the figures on everything that was held out, and on sets that were never trained on."""
    kaggle = data / "kaggle-blood-cells"
    pbc = run(predictor, [(cell.path, cell.label) for cell in of_part(cells, "test", "pbc")], "pbc")
    metrics = {"pbc_test": report(pbc, root=data)}
    slides = of_part(cells, "test", "raabin")
    by_slide = {cell.path: cell.group for cell in slides}
    metrics["raabin_held_out_slides"] = report(
        run(predictor, [(c.path, c.label) for c in slides], "raabin"), by_slide, root=data
    )
    pictures = read_class_folders(kaggle / "TEST")
    known = test_photographs(kaggle)
    by_photograph = {path: known.get(f"{path.parent.name}/{path.name}", path.name) for path, _ in pictures}
    test = run(predictor, pictures, "kaggle TEST")
    metrics["kaggle_test"] = report(test, by_photograph, root=data)
    certain = replace(test, outcomes=[o for o in test.outcomes if f"{o.path.parent.name}/{o.path.name}" in known])
    metrics["kaggle_test"]["originals"] = clusters_right(certain, by_photograph)
    simple = read_class_folders(kaggle / "TEST_SIMPLE")
    metrics["kaggle_test_simple"] = report(run(predictor, simple, "kaggle TEST_SIMPLE"), root=data)
    metrics["jtsc_never_trained_on"] = report(run(predictor, read_class_folders(data / "jtsc"), "jtsc"), root=data)
    for name, figures in metrics.items():
        say(
            f"{name} {json.dumps({key: value for key, value in figures.items() if not isinstance(value, dict | list)})}"
        )
    return metrics


def install(folder: Path, artifacts: Path, card: ModelCard) -> Path:
    """Copy a bundle's files to `artifacts/<name>-<version>` and make it the shipped one."""
    target = artifacts / f"{card.name}-{card.version}"
    target.mkdir(parents=True, exist_ok=True)
    for name in (*card.files, CARD_FILE):
        shutil.copyfile(folder / name, target / name)
    (artifacts / "SHIPPED").write_text(target.name + "\n", encoding="utf-8")
    return target
