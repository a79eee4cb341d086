"""Training on the CPU or a GPU: a head on cached features first, then the network under augmentation."""

import csv
import os
import random as python_random
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ml.augment import training_view
from ml.examples import Examples
from ml.network import backbone_of, build_network, thaw
from ml.preprocess import INPUT_SIZE, network_input
from ml.progress import Progress, say
from ml.recipe import Recipe

HEAD_WEIGHTS = "head.weights.h5"


class ViewBatches:
    """Random training batches, made ahead in threads. Batch number i is the same in every run of one seed."""

    def __init__(self, examples: Examples, recipe: Recipe, size: int = INPUT_SIZE, ahead: int = 8) -> None:
        self._examples, self._recipe, self._size, self._ahead = examples, recipe, size, ahead
        present = [(source, weight) for source, weight in recipe.source_weights if source in set(examples.sources)]
        total = sum(weight for _, weight in present)
        sources = np.array(examples.sources)
        self.chances = np.zeros(len(sources))
        for source, weight in present:
            for label in np.unique(examples.labels[sources == source]):
                members = (sources == source) & (examples.labels == label)
                # Square root: rare classes are seen more often, but not as if they were common.
                self.chances[members] = weight / total / np.sqrt(members.sum())
            own = sources == source
            self.chances[own] *= weight / total / self.chances[own].sum()
        self.chances /= self.chances.sum()

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        with ThreadPoolExecutor(2) as pool:
            waiting: deque[Future[tuple[NDArray[np.uint8], NDArray[np.int64]]]] = deque()
            for number in range(self._recipe.steps + self._ahead):
                if number < self._recipe.steps:
                    waiting.append(pool.submit(self._batch, number))
                if number >= self._ahead and waiting:
                    yield waiting.popleft().result()

    def _batch(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        random = np.random.default_rng([self._recipe.seed, number])
        chosen = random.choice(len(self.chances), self._recipe.batch, p=self.chances)
        views = [training_view(self._examples.scenes[i], self._size, random, self._recipe.mild_share) for i in chosen]
        return np.stack(views), self._examples.labels[chosen]


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, and print the device that was found."""
    os.environ["PYTHONHASHSEED"] = str(seed)
    python_random.seed(seed)
    keras.utils.set_random_seed(seed)
    cv2.setNumThreads(1)
    devices = tf.config.list_physical_devices("GPU")
    say(f"training on {'GPU' if devices else 'CPU'}")


def train_network(
    training: Examples, validation: Examples, classes: int, recipe: Recipe, weights: Path | None, folder: Path
) -> keras.Model:
    """Train and return the network with averaged weights; `folder` gets `training.csv` and the best weights so far."""
    seed_everything(recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    network = build_network(classes, INPUT_SIZE, weights)
    ready_head = folder / HEAD_WEIGHTS
    if ready_head.exists():
        network.load_weights(str(ready_head))
    else:
        warm_head(network, training, recipe)
        network.save_weights(str(ready_head))
    if recipe.steps:
        fine_tune(network, training, validation, recipe, folder)
    return network


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


def warm_head(network: keras.Model, training: Examples, recipe: Recipe, epochs: int = 30) -> None:
    """Train the head alone on features that are computed once."""
    features = pooled_features(network, training.views(), "features")
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


def fine_tune(network: keras.Model, training: Examples, validation: Examples, recipe: Recipe, folder: Path) -> None:
    """Train the network from block 3 on; ends with the averaged weights in place."""
    thaw(network)
    warm_up = min(recipe.warm_up, recipe.steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, recipe.steps - warm_up, warmup_target=recipe.learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=recipe.weight_decay, global_clipnorm=1.0, use_ema=True, ema_momentum=recipe.ema
    )
    variables = network.trainable_variables
    optimizer.build(variables)
    classes = network.output_shape[1][-1]
    # Apart, since a `training=True` for the whole would also unfreeze the batch statistics of the backbone.
    backbone, head = backbone_of(network), keras.Model(network.outputs[0], network.outputs[1])

    @tf.function  # type: ignore[untyped-decorator]
    def step(pixels: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        scaled = tf.cast(pixels, tf.float32) / 127.5 - 1.0
        target = tf.one_hot(labels, classes) * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
        with tf.GradientTape() as tape:
            logits = head(backbone(scaled, training=False), training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    @tf.function  # type: ignore[untyped-decorator]
    def answer(pixels: tf.Tensor) -> tf.Tensor:
        return network(tf.cast(pixels, tf.float32) / 127.5 - 1.0, training=False)[1]

    views = validation.views()
    progress = Progress("step", recipe.steps, every_seconds=5)
    started = time.monotonic()
    losses: list[float] = []
    names = sorted(set(validation.sources))
    with (folder / "training.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["step", "seconds", "loss", "validation_accuracy", *names])
        for number, (pixels, labels) in enumerate(ViewBatches(training, recipe), start=1):
            losses.append(float(step(tf.constant(pixels), tf.constant(labels))))
            progress.advance(note=f"loss {np.mean(losses[-50:]):.3f}")
            is_last = number == recipe.steps
            if number % recipe.check_every and not is_last:
                continue
            trained = [variable.numpy() for variable in variables]
            optimizer.finalize_variable_values(variables)
            right = (
                np.concatenate(
                    [answer(tf.constant(views[i : i + 64])).numpy().argmax(1) for i in range(0, len(views), 64)]
                )
                == validation.labels
            )
            by_source = [float(right[np.array(validation.sources) == name].mean()) for name in names]
            elapsed = round(time.monotonic() - started)
            row = [number, elapsed, float(np.mean(losses[-50:])), float(right.mean()), *by_source]
            log.writerow(row)
            file.flush()
            say(f"checked {row}")
            network.save_weights(str(folder / "latest.weights.h5"))
            if not is_last:
                for variable, value in zip(variables, trained, strict=True):
                    variable.assign(value)
