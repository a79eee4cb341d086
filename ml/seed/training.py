"""The two ways to train the seed's head: on augmented frames as it was written, or on features computed once."""

import csv
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ml.errors import UnusableData
from ml.progress import Progress
from ml.seed.network import head_on_features, pooled_features, probabilities, seed_input, thaw_last_blocks
from ml.seed.recipe import SeedRecipe
from ml.seed.views import MORE, USUAL, random_view

_AHEAD = 6
_COLUMNS = ("epoch", "seconds", "loss", "accuracy", "validation_loss", "validation_accuracy")

Answers = Callable[[], NDArray[np.float32]]
Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Frames:
    """Decoded frames, uint8 (n, S, S, 3), with their class indices, int64 (n,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Course:
    """How a training went: one row an epoch (columns as in the log), and the seconds of each part, by the clock and of
    the processor (all cores; fair where others use the machine too, meaningless where a GPU does the work).
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Take the time of a part. Raises UnusableData where the memory does not hold its pictures."""
        clock, processor = time.monotonic(), time.process_time()
        try:
            yield
        except tf.errors.ResourceExhaustedError as error:
            raise UnusableData("The memory does not hold a batch of frames; try --batch 32 or --size 128.") from error
        self.seconds[part] = time.monotonic() - clock
        self.cpu_seconds[part] = time.process_time() - processor


def train_as_written(
    network: keras.Model, training: Frames, validation: Frames, recipe: SeedRecipe, log: Path
) -> Course:
    """Train on random views of the frames, new ones each epoch; with `recipe.unfreeze` the last blocks afterwards.

    `log` becomes the CSV of the epochs. Raises UnusableData where the memory does not hold a batch.
    """
    course = Course()
    answers = partial(probabilities, network, validation.pixels, "validation")
    writer = _EpochLog("as written", course, log, validation.labels, answers)
    with course.timed("training"):
        _compile(network, 1e-3)
        _fit_on_views(network, training, recipe, writer, 0)
    if recipe.unfreeze:
        with course.timed("fine_tuning"):
            thaw_last_blocks(network)
            _compile(network, 1e-4)
            _fit_on_views(network, training, recipe, writer, recipe.epochs)
    return course


def train_on_features(
    network: keras.Model, training: Frames, validation: Frames, recipe: SeedRecipe, log: Path
) -> Course:
    """Compute the frozen features of the un-augmented frames once, and train the network's own head on them.

    `log` becomes the CSV of the epochs. Raises UnusableData where the memory does not hold a batch.
    """
    course = Course()
    with course.timed("features"):
        features = pooled_features(network, training.pixels)
        seen = pooled_features(network, validation.pixels, "features of validation")
    with course.timed("head"):
        head = head_on_features(network)
        _compile(head, 1e-3)
        writer = _EpochLog("cached features", course, log, validation.labels, partial(head.predict_on_batch, seen))
        writer.expect(recipe.epochs * _steps(training, recipe))
        targets = _one_hot(training.labels, head.output_shape[-1])
        head.fit(features, targets, batch_size=recipe.batch, epochs=recipe.epochs, callbacks=[writer], verbose=0)
    return course


class _EpochLog(keras.callbacks.Callback):  # type: ignore[misc]
    """Shows progress, and adds a row an epoch to a course and to its CSV file."""

    def __init__(self, what: str, course: Course, log: Path, labels: NDArray[np.int64], answers: Answers) -> None:
        super().__init__()
        self._what, self._course, self._log, self._labels, self._answers = what, course, log, labels, answers
        self._started = time.monotonic()
        self._progress = Progress(what, 1)
        _write_rows(log, [])

    def expect(self, batches: int) -> None:
        """Say how many batches will come."""
        self._progress = Progress(self._what, batches)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Show how far it is."""
        self._progress.advance(note=f"loss {(logs or {})['loss']:.3f}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the validation share and write a row."""
        answers = self._answers()
        own = answers[np.arange(len(answers)), self._labels]
        values = (
            epoch + 1,
            round(time.monotonic() - self._started, 1),
            float((logs or {})["loss"]),
            float((logs or {})["accuracy"]),
            float(-np.log(np.maximum(own, 1e-7)).mean()),
            float((answers.argmax(1) == self._labels).mean()),
        )
        self._course.rows.append(dict(zip(_COLUMNS, values, strict=True)))
        _write_rows(self._log, self._course.rows)


def _write_rows(log: Path, rows: list[dict[str, float]]) -> None:
    with log.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _fit_on_views(
    network: keras.Model, training: Frames, recipe: SeedRecipe, writer: _EpochLog, first_epoch: int
) -> None:
    steps, last_epoch = _steps(training, recipe), first_epoch + recipe.epochs
    writer.expect(recipe.epochs * steps)
    network.fit(
        view_batches(training, recipe, first_epoch, network.output_shape[-1]),
        steps_per_epoch=steps,
        initial_epoch=first_epoch,
        epochs=last_epoch,
        callbacks=[writer],
        shuffle=False,
        verbose=0,
    )


def view_batches(training: Frames, recipe: SeedRecipe, first_epoch: int, classes: int) -> Iterator[Batch]:
    """Yield every batch of `recipe.epochs` epochs: random views as the network takes them, and one-hot labels.

    Each epoch shows every frame once, in an order of its own. Batches are made ahead in threads, and are the same in
    every run of one seed.
    """
    targets = _one_hot(training.labels, classes)
    ranges = MORE if recipe.more_augmentation else USUAL

    def batch(epoch: int, chosen: NDArray[np.int64]) -> Batch:
        random = np.random.default_rng([recipe.seed, epoch, int(chosen[0])])
        views = np.stack([random_view(training.pixels[index], random, ranges) for index in chosen])
        return seed_input(views), targets[chosen]

    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[Batch]] = deque()
        for epoch in range(first_epoch, first_epoch + recipe.epochs):
            order = np.random.default_rng([recipe.seed, epoch]).permutation(len(training.labels))
            for start in range(0, len(order), recipe.batch):
                waiting.append(pool.submit(batch, epoch, order[start : start + recipe.batch]))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _compile(model: keras.Model, learning_rate: float) -> None:
    # Without XLA, which would compile anew for the last, smaller batch.
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,
    )


def _one_hot(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    return np.eye(classes, dtype=np.float32)[labels]


def _steps(training: Frames, recipe: SeedRecipe) -> int:
    return -(-len(training.labels) // recipe.batch)
