"""The seed's recipe from folders to a saved model, its drawings and its report."""

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ml.figures import confusion_matrix, sample_grid, strip, training_curves
from ml.labels import display_name
from ml.progress import say
from ml.seed.network import build_seed_network, probabilities
from ml.seed.pictures import SeedPictures, load_frames, read_pictures
from ml.seed.recipe import SeedRecipe, Weights
from ml.seed.report import figures_on_test
from ml.seed.training import Course, Frames, train_as_written, train_on_features
from ml.seed.views import MORE, USUAL, random_view
from ml.staging import staged
from ml.train import seed_everything

MODEL_FILE = "Blood Cell.h5"
COMPARISON = "as-written"
_SAMPLES = 5
_VIEWS = 7


def train_seed(data: Path, out: Path, recipe: SeedRecipe, weights: Weights) -> dict[str, Any]:
    """Train on `data` and write model, log, drawings and `report.json` to `out`, all or nothing. Returns the report.

    With `recipe.cache_features` the model is the one trained on cached features; the recipe as it was written runs as
    well, from the same start, and goes to the folder `as-written`. Raises UnusableData, and OSError where nothing can
    be written.
    """
    recipe.check()
    pictures = read_pictures(data, recipe.validation_share)
    # Before minutes of work: is there a folder to write to, and are the weights good?
    with staged(out) as folder:
        seed_everything(recipe.seed)
        device = found_device()
        say(f"{device['name']}: {len(pictures.training)} pictures to train on")
        network = build_seed_network(len(pictures.classes), recipe.size, weights)
        start = network.get_weights()
        started = time.monotonic()
        training, validation, test = (
            Frames(load_frames(part, recipe.size, f"decode {name}"), pictures.indices(part))
            for name, part in (
                ("training", pictures.training),
                ("validation", pictures.validation),
                ("test", pictures.test),
            )
        )
        decoding = time.monotonic() - started
        draw_data(pictures, training, recipe, folder)

        report: dict[str, Any] = {
            "config": "seed",
            "options": recipe.as_dict(),
            "weights": weights.name if isinstance(weights, Path) else weights,
            "device": device,
            "data": describe(pictures),
        }
        if recipe.cache_features:
            course = train_on_features(network, training, validation, recipe, folder / "training.csv")
            report |= finish(network, course, pictures, test, folder, decoding)
            network.set_weights(start)
            keras.utils.set_random_seed(recipe.seed)
            beside = folder / COMPARISON
            beside.mkdir()
            written = train_as_written(network, training, validation, recipe, beside / "training.csv")
            report["as_written"] = finish(network, written, pictures, test, beside, decoding)
            report["speed"] = compare_speed(course, written)
        else:
            course = train_as_written(network, training, validation, recipe, folder / "training.csv")
            report |= finish(network, course, pictures, test, folder, decoding)
        (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def compare_speed(cached: Course, written: Course) -> dict[str, Any]:
    """Return the seconds of both ways of training, and how many times faster the cached one is."""
    clocks = {"seconds": (cached.seconds, written.seconds), "cpu_seconds": (cached.cpu_seconds, written.cpu_seconds)}
    return {"as_written_measured": "in full"} | {
        clock: {
            "cached": sum(fast.values()),
            "as_written": sum(slow.values()),
            "times_faster": sum(slow.values()) / sum(fast.values()),
        }
        for clock, (fast, slow) in clocks.items()
    }


def found_device() -> dict[str, Any]:
    """Return what the training runs on: `kind` GPU or CPU, its name, and the number of CPU cores."""
    graphics = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(graphics[0]) if graphics else {}
    return {
        "kind": "GPU" if graphics else "CPU",
        "name": details.get("device_name", graphics[0].name) if graphics else f"CPU ({platform.machine()})",
        "cores": os.cpu_count(),
    }


def describe(pictures: SeedPictures) -> dict[str, Any]:
    """Return the counts of a run's pictures, JSON-ready."""
    return {
        "classes": list(pictures.classes),
        "training": len(pictures.training),
        "validation": len(pictures.validation),
        "test": len(pictures.test),
        "left_out_of_training": pictures.left_out,
        "validation_split_by": pictures.split,
    }


def draw_data(pictures: SeedPictures, training: Frames, recipe: SeedRecipe, folder: Path) -> None:
    """Draw `samples.png`, some frames of each class, and `augmentation.png`, one frame and views of it."""
    rows = {
        display_name(label): list(training.pixels[training.labels == index][:_SAMPLES])
        for index, label in enumerate(pictures.classes)
    }
    sample_grid(rows).save(folder / "samples.png")
    random = np.random.default_rng(recipe.seed)
    ranges = MORE if recipe.more_augmentation else USUAL
    views = [(f"view {number + 1}", random_view(training.pixels[0], random, ranges)) for number in range(_VIEWS)]
    strip([("frame", training.pixels[0]), *views]).save(folder / "augmentation.png")


def finish(
    network: keras.Model, course: Course, pictures: SeedPictures, test: Frames, folder: Path, decoding: float
) -> Mapping[str, Any]:
    """Save a trained network, draw its curves and its confusion matrix, and return its figures on TEST."""
    answers = probabilities(network, test.pixels)
    figures = figures_on_test(pictures, answers)
    network.save(folder / MODEL_FILE)
    training_curves(course.rows).save(folder / "training_curves.png")
    drawn = confusion_matrix(figures["confusion"], f"TEST, {figures['n']} files")
    drawn.save(folder / "confusion_matrix.png")
    return figures | {
        "validation_accuracy": course.rows[-1]["validation_accuracy"],
        "seconds": {"decoding": decoding, **course.seconds, "training_in_all": sum(course.seconds.values())},
        "cpu_seconds": course.cpu_seconds,
    }
