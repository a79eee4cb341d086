"""Training on the CPU or a GPU: a head on cached features first, then the network under augmentation.

A run that was cut short goes on where it last saved itself, when it is started again with the same recipe and data.
"""

import csv
import hashlib
import json
import os
import random as python_random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ml.augment import Augmentation
from ml.data_folder import cache_folder
from ml.errors import UnusableData
from ml.examples import Examples
from ml.folded_backbone import folded_forward
from ml.heat_map import Head, grad_cam
from ml.model_card import file_sha256
from ml.network import backbone_of, build_network, head_weights, resized_network, thaw
from ml.preprocess import INPUT_SIZE, network_input
from ml.progress import Progress, say
from ml.recipe import Recipe, Stage

CHECKPOINT = "checkpoint.npz"
LOG = "training.csv"
_LENDERS_EVERY = 7  # every so many pictures lends its stain to others


class ViewBatches:
    """Random training batches, made ahead in threads. Batch number i is the same in every run of one seed.

    Iterating gives uint8 pixels (batch, stage.size, stage.size, 3) and labels (batch,) of the batches from `first` to
    before `last`.
    """

    def __init__(self, examples: Examples, recipe: Recipe, stage: Stage, first: int, last: int, ahead: int = 8) -> None:
        self._examples, self._recipe, self._size, self._ahead = examples, recipe, stage.size, ahead
        self._numbers = range(first, last)
        self._chances = chances_of(examples, stage.source_weights)
        # Of every source, also of one that the stage does not draw from: its stains teach without its labels.
        self.lenders = [scene.pixels for scene in examples.scenes[::_LENDERS_EVERY]]
        self._augmentation = Augmentation(recipe.mild_share, recipe.stain_borrowed, self.lenders)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        with ThreadPoolExecutor(2) as pool:
            waiting: deque[Future[tuple[NDArray[np.uint8], NDArray[np.int64]]]] = deque()
            for number in self._numbers:
                waiting.append(pool.submit(self._batch, number))
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _batch(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        random = np.random.default_rng([self._recipe.seed, number])
        chosen = random.choice(len(self._chances), self._recipe.batch, p=self._chances)
        views = [self._augmentation.view(self._examples.scenes[i], self._size, random) for i in chosen]
        return np.stack(views), self._examples.labels[chosen]


def chances_of(examples: Examples, source_weights: Sequence[tuple[str, float]]) -> NDArray[np.float64]:
    """Return how likely each picture is to be drawn, float64 (n,), summing to 1: sources by their weights, classes of a
    source by the square root of their size, so that rare ones come more often, but not as if they were common.
    """
    present = [(source, weight) for source, weight in source_weights if source in set(examples.sources)]
    total = sum(weight for _, weight in present)
    sources = np.array(examples.sources)
    chances = np.zeros(len(sources))
    for source, weight in present:
        own = sources == source
        for label in np.unique(examples.labels[own]):
            members = own & (examples.labels == label)
            chances[members] = 1 / np.sqrt(members.sum())
        chances[own] *= weight / total / chances[own].sum()
    return np.asarray(chances / chances.sum(), np.float64)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, and print the device that was found."""
    os.environ["PYTHONHASHSEED"] = str(seed)
    # Products in bfloat16, sums in float32, where the processor has it: a sixth faster, and the weights stay float32.
    os.environ.setdefault("TF_SET_ONEDNN_FPMATH_MODE", "BF16")
    python_random.seed(seed)
    keras.utils.set_random_seed(seed)
    cv2.setNumThreads(1)
    devices = tf.config.list_physical_devices("GPU")
    say(f"training on {'GPU' if devices else 'CPU'}")


def train_network(
    training: Examples, validation: Examples, classes: int, recipe: Recipe, weights: Path | None, folder: Path
) -> tuple[keras.Model, float]:
    """Train a network; return it with averaged weights, and the seconds that it took in all parts of the run.

    `folder` gets `training.csv` and a checkpoint. Raises UnusableData where it holds the checkpoint of another run.
    """
    seed_everything(recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(folder / CHECKPOINT, recipe, training, weights)
    state = checkpoint.load()
    stopwatch = Stopwatch(state.seconds if state else 0.0)
    log = TrainingLog(folder / LOG, sorted(set(validation.sources)), state.step if state else 0)
    network = build_network(classes, recipe.stages[0].size if recipe.stages else INPUT_SIZE, weights)
    if state is None:
        warm_head(network, training, recipe)
    else:
        say(f"going on after step {state.step}")
        network.set_weights(state.weights)
    done = 0
    for stage in recipe.stages:
        network = resized_network(network, stage.size)
        if state is None or state.step < done + stage.steps:
            state = fine_tune(network, training, validation, recipe, stage, done, state, checkpoint, log, stopwatch)
        done += stage.steps
    return resized_network(network, INPUT_SIZE), state.seconds if state else stopwatch.seconds


def pooled_features(network: keras.Model, views: NDArray[np.uint8], what: str) -> NDArray[np.float32]:
    """Return the pooled features (n, 1280) of uint8 views."""
    backbone = backbone_of(network)
    pool = tf.function(lambda pixels: tf.reduce_mean(backbone(pixels, training=False), axis=(1, 2)))
    progress = Progress(what, len(views))
    parts = []
    for start in range(0, len(views), 64):
        block = views[start : start + 64]
        parts.append(pool(tf.constant(network_input(block))).numpy())
        progress.advance(len(block))
    return np.concatenate(parts)


def cached_features(network: keras.Model, views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return `pooled_features`, from the cache folder where the same network saw the same views before."""
    digest = hashlib.sha256(views.tobytes())
    for weight in backbone_of(network).get_weights():
        digest.update(np.asarray(weight).tobytes())
    kept = cache_folder() / "features" / f"{digest.hexdigest()[:24]}.npy"
    with suppress(OSError, ValueError):
        return np.asarray(np.load(kept, allow_pickle=False), np.float32)
    features = pooled_features(network, views, "features")
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(".part")
        with fresh.open("wb") as file:
            np.save(file, features)
        fresh.replace(kept)
    return features


def warm_head(network: keras.Model, training: Examples, recipe: Recipe, epochs: int = 15) -> None:
    """Train the head alone on features that are computed once, and kept for the next run."""
    features = cached_features(network, training.views(network.input_shape[1]))
    head = keras.Sequential(
        [
            keras.Input((features.shape[1],)),
            keras.layers.Dropout(0.2),
            network.get_layer("hidden"),
            keras.layers.Dropout(0.3),
            network.get_layer("logits"),
        ]
    )
    head.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=recipe.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    head.fit(features, training.labels, batch_size=128, epochs=epochs, verbose=0)


def build_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """Return AdamW with warm-up, one cosine over all stages, clipping, and an average of the weights."""
    warm_up = min(recipe.warm_up, recipe.steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, recipe.steps - warm_up, warmup_target=recipe.learning_rate, warmup_steps=warm_up
    )
    return keras.optimizers.AdamW(
        schedule, weight_decay=recipe.weight_decay, global_clipnorm=1.0, use_ema=True, ema_momentum=recipe.ema
    )


def build_step(
    network: keras.Model, optimizer: keras.optimizers.Optimizer, recipe: Recipe
) -> Callable[[NDArray[np.uint8], NDArray[np.int64]], float]:
    """Return the function that trains on one batch and gives its loss."""
    variables = network.trainable_variables
    classes = network.output_shape[1][-1]
    # Apart, since a `training=True` for the whole would also unfreeze the batch statistics of the backbone.
    backbone, head = folded_forward(backbone_of(network)), keras.Model(network.outputs[0], network.outputs[1])

    @tf.function  # type: ignore[untyped-decorator]
    def step(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        scaled = tf.cast(pixels, tf.float32) / 127.5 - 1.0
        target = tf.one_hot(labels, classes) * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
        with tf.GradientTape() as tape:
            feature_map = drop_cells(backbone(scaled), recipe.cells_dropped)
            logits = head(feature_map, training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return lambda pixels, labels: float(step(tf.constant(pixels), tf.constant(labels)))


def drop_cells(feature_map: tf.Tensor, share: float) -> tf.Tensor:
    """Hide a random share of the cells of feature maps (n, h, w, c), and keep the mean of the others.

    Without it the network learns to gather what it saw in one cell, the same in every picture, and a heat map from it
    explains nothing.
    """
    if not share:
        return feature_map
    kept = tf.cast(tf.random.uniform(tf.shape(feature_map)[:3]) >= share, tf.float32)[..., None]
    return feature_map * kept / tf.maximum(tf.reduce_mean(kept, axis=(1, 2), keepdims=True), 0.04)


def fine_tune(
    network: keras.Model,
    training: Examples,
    validation: Examples,
    recipe: Recipe,
    stage: Stage,
    done: int,
    state: "State | None",
    checkpoint: "Checkpoint",
    log: "TrainingLog",
    stopwatch: "Stopwatch",
) -> "State":
    """Carry out one stage, of which `done` steps came before, from `state` on; return the state at its end.

    After the last stage the averaged weights are in place.
    """
    thaw(network)
    variables = network.trainable_variables
    optimizer = build_optimizer(recipe)
    optimizer.build(variables)
    if state is not None:
        for variable, value in zip(optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
    first, last = state.step if state else 0, done + stage.steps
    step = build_step(network, optimizer, recipe)
    views = validation.views(stage.size)
    progress = Progress(f"step ({stage.size} px)", last - first, every_seconds=5)
    losses: deque[float] = deque(maxlen=50)
    for number, batch in enumerate(ViewBatches(training, recipe, stage, first, last), start=first + 1):
        losses.append(step(*batch))
        progress.advance(note=f"loss {np.mean(losses):.3f}")
        if number % recipe.check_every and number != last:
            continue
        trained = [variable.numpy() for variable in optimizer.variables]
        state = State(number, stopwatch.seconds, network.get_weights(), trained)
        optimizer.finalize_variable_values(variables)
        log.write(number, state.seconds, float(np.mean(losses)), *judge(network, views, validation))
        if number == recipe.steps:
            state = replace(state, weights=network.get_weights())
        else:
            network.set_weights(state.weights)
        checkpoint.save(state)
    if state is None:
        raise ValueError("A stage has at least one step.")
    return state


def judge(network: keras.Model, views: NDArray[np.uint8], validation: Examples) -> tuple[float, list[float], float]:
    """Return the accuracy on prepared validation pictures, that of each source (by name), and the share of the heat
    map that its strongest cell holds (median).
    """
    parts = [network(tf.constant(network_input(views[i : i + 64])), training=False) for i in range(0, len(views), 64)]
    logits = np.concatenate([part[1].numpy() for part in parts])
    head = Head(**head_weights(network))
    right = logits.argmax(1) == validation.labels
    sources = np.array(validation.sources)
    sample = [(maps, part[1].numpy()) for part in parts[:: max(1, len(parts) // 4)] for maps in [part[0].numpy()]]
    peaks = [
        float(cam.max() / max(cam.sum(), 1e-9))
        for maps, scores in sample
        for cam in (grad_cam(one, head, int(score.argmax())) for one, score in zip(maps, scores, strict=True))
    ]
    return (
        float(right.mean()),
        [float(right[sources == name].mean()) for name in sorted(set(sources))],
        float(np.median(peaks)),
    )


class Stopwatch:
    """The seconds of a run, in all its parts; what an interruption undid is not among them."""

    def __init__(self, before: float) -> None:
        self._before, self._started = before, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of work so far."""
        return self._before + time.monotonic() - self._started


class TrainingLog:
    """`training.csv`: one line a check. Lines after step `done`, which a run goes on from, are taken out."""

    def __init__(self, path: Path, sources: Sequence[str], done: int) -> None:
        self._path = path
        head = ["step", "seconds", "loss", "validation_accuracy", *sources, "heat_map_peak"]
        self._write([head, *self._lines_up_to(done)], "w")

    def write(self, step: int, seconds: float, loss: float, right: float, by_source: list[float], peak: float) -> None:
        """Add a line, and say it."""
        values = [round(loss, 4), round(right, 4), *(round(share, 4) for share in by_source), round(peak, 3)]
        self._write([[step, round(seconds), *values]], "a")
        say(f"checked at step {step}: {values}")

    def _lines_up_to(self, done: int) -> list[list[str]]:
        if not done or not self._path.exists():
            return []
        with self._path.open(newline="") as file:
            return [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= done]

    def _write(self, rows: Sequence[Sequence[object]], mode: str) -> None:
        with self._path.open(mode, newline="") as file:
            csv.writer(file).writerows(rows)


@dataclass(frozen=True)
class State:
    """A run after `step` steps and `seconds` of work: the arrays of the network and of the optimizer, each in its own
    order.
    """

    step: int
    seconds: float
    weights: list[NDArray[np.float32]]
    optimizer: list[NDArray[np.generic]]


class Checkpoint:
    """The file that an interrupted run goes on from. Written whole or not at all."""

    def __init__(self, path: Path, recipe: Recipe, training: Examples, weights: Path | None) -> None:
        self._path = path
        data = hashlib.sha256(training.labels.tobytes() + "".join(training.sources).encode()).hexdigest()
        self._run = json.dumps([recipe.as_dict(), data, file_sha256(weights) if weights else None])

    def load(self) -> State | None:
        """Return the saved state, or None without one. Raises UnusableData for that of another run."""
        if not self._path.exists():
            return None
        with np.load(self._path, allow_pickle=False) as saved:
            if str(saved["run"]) != self._run:
                raise UnusableData(
                    "The output folder holds an unfinished run with another recipe, other data or other weights; "
                    "name another folder, or delete that one."
                )
            numbers = range(len(saved.files))
            weights, optimizer = (
                [saved[f"{kind}{i}"] for i in numbers if f"{kind}{i}" in saved] for kind in ("weights", "optimizer")
            )
            return State(int(saved["step"]), float(saved["seconds"]), weights, optimizer)

    def save(self, state: State) -> None:
        """Keep a state instead of the one before."""
        arrays: dict[str, NDArray[np.generic]] = {f"weights{i}": value for i, value in enumerate(state.weights)}
        arrays |= {f"optimizer{i}": value for i, value in enumerate(state.optimizer)}
        fresh = self._path.with_suffix(".part")
        with fresh.open("wb") as file:
            numbers = {"step": np.array(state.step), "seconds": np.array(state.seconds)}
            np.savez(file, allow_pickle=False, run=np.array(self._run), **numbers, **arrays)
        fresh.replace(self._path)
