"""What the cores can do at all: the model's own functions in plain loops, one process a core, one thread each."""

import multiprocessing
import multiprocessing.synchronize
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hematovision.settings import BASE_DIR
from ml.benchmark import BATCH, part_times
from ml.predictor import LiteRTPredictor, load_predictor

SHIPPED = BASE_DIR / "ml" / "artifacts"
WARM_UP = 32
START_SECONDS = 120
PARTS = 64


def raw(pictures: Sequence[Path], cores: int) -> dict[str, Any]:
    """Images a second of all loops together, of the network alone, and the parts in ms an image.

    Every loop starts at the same moment; together they have done all when the slowest is ready.
    """
    images, seconds = together(whole_way, pictures, cores)
    alone_images, alone_seconds = together(network_alone, pictures, cores)
    predictor, files = one_thread(), [path.read_bytes() for path in pictures[:PARTS]]
    part_times(predictor, files[:WARM_UP])
    return {
        "n": images,
        "cores": cores,
        "images_per_second": images / seconds,
        "predict_only_images_per_second": alone_images / alone_seconds,
        "ms": part_times(predictor, files),
    }


def together(loop: Any, pictures: Sequence[Path], cores: int) -> tuple[int, float]:
    """Run a loop in so many processes, each on its share of the pictures; returns images and seconds."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(cores)
    answers: Any = context.Queue()
    shares = [pictures[each::cores] for each in range(cores)]
    processes = [context.Process(target=timed, args=(loop, share, start, answers)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        message = "A loop of the raw measurement broke off; what it says stands above."
        raise RuntimeError(message)
    results = [answers.get() for _ in processes]
    return sum(count for count, _ in results), max(seconds for _, seconds in results)


def timed(loop: Any, pictures: Sequence[Path], start: multiprocessing.synchronize.Barrier, answers: Any) -> None:
    predictor = one_thread()
    files = [path.read_bytes() for path in pictures]
    run = loop(predictor, files)
    start.wait(timeout=START_SECONDS)
    began = time.perf_counter()
    run()
    answers.put((len(files), time.perf_counter() - began))


def whole_way(predictor: LiteRTPredictor, files: Sequence[bytes]) -> Any:
    """Decode, locate, prepare, predict and draw the heat map, in blocks."""

    def run() -> None:
        for first in range(0, len(files), BATCH):
            predictor.predict([predictor.prepare(file) for file in files[first : first + BATCH]])

    predictor.predict([predictor.prepare(file) for file in files[:WARM_UP]])
    return run


def network_alone(predictor: LiteRTPredictor, files: Sequence[bytes]) -> Any:
    """The runtime on pictures that are prepared already."""
    pixels = np.stack([predictor.prepare(file).pixels for file in files])

    def run() -> None:
        for first in range(0, len(pixels), BATCH):
            predictor.runtime.run(pixels[first : first + BATCH])

    predictor.runtime.run(pixels[:WARM_UP])
    return run


def one_thread() -> LiteRTPredictor:
    cv2.setNumThreads(1)
    return load_predictor(SHIPPED / (SHIPPED / "SHIPPED").read_text().strip(), threads=1)
