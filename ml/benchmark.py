"""What one picture costs on one core, part by part: the same functions that serve it, on real pictures."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ml.dataset import IMAGE_SUFFIXES
from ml.errors import UnreadableImage, UnusableData
from ml.heat_map import heat_maps
from ml.images import decode
from ml.locate import find_leukocytes
from ml.predictor import LiteRTPredictor, load_predictor
from ml.preprocess import choose_window, prepare_cell
from ml.progress import Progress
from ml.views import seen

BATCH = 8
WIDTH, HEIGHT, QUALITY = 360, 363, 90
_MOST_PICTURES = 64
_ROUNDS = 7


def benchmark(bundle: Path, folder: Path) -> dict[str, Any]:
    """Return milliseconds a picture on one thread in batches of 8, JSON-ready.

    Pictures of `folder` and its subfolders, up to 64 spread evenly, are brought to JPEGs of 360 x 363 (quality 90) in
    memory. `ms` has the median over the rounds of each part, and `ms_best` the best round: `decode`, `locate`,
    `prepare` (cut, resize, and look whether a cell is in the middle), `predict` (the network), `answer` (head, gate,
    conformal sets), `heat_map`, and `total`, which is measured as a whole from bytes to predictions. In a picture of a
    single cell no window is looked for: `locate_in_field` is what that adds in a field. It is processor time (`cpu`),
    so that other work on the machine is not measured. `heat_map_share` is of the network's time. `start_seconds` is the
    wall time of `python -m ml predict` on one picture, from its start to its end, best of three.
    Raises UnusableData where no picture can be read, and ModelUnavailable.
    """
    predictor = load_predictor(bundle, threads=1)
    pictures = _pictures(folder)
    files = _as_jpegs(pictures)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        part_times(predictor, files[:BATCH])
        progress = Progress("benchmark", _ROUNDS)
        rounds = list(progress.each(part_times(predictor, files) for _ in range(_ROUNDS)))
    finally:
        cv2.setNumThreads(threads)
    median = {part: round(statistics.median(each[part] for each in rounds), 4) for part in rounds[0]}
    return {
        "n": len(files),
        "rounds": _ROUNDS,
        "batch": BATCH,
        "threads": 1,
        "clock": "cpu",
        "picture": f"JPEG {WIDTH}x{HEIGHT}, quality {QUALITY}",
        "ms": median,
        "ms_best": {part: round(min(each[part] for each in rounds), 4) for part in rounds[0]},
        "images_per_second": round(1000 / median["total"], 1),
        "heat_map_share": round(median["heat_map"] / median["predict"], 4),
        "start_seconds": round(min(_start_seconds(bundle, pictures[0]) for _ in range(3)), 2),
        "model": {"name": predictor.card.name, "version": predictor.card.version, "sha256": predictor.card.sha256},
    }


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise UnusableData(f"The folder {folder.name!r} has no pictures in it.")
    return found[:: max(1, len(found) // _MOST_PICTURES)][:_MOST_PICTURES]


def _as_jpegs(pictures: Sequence[Path]) -> list[bytes]:
    files = []
    for path in pictures:
        try:
            picture = decode(path.read_bytes())
        except (UnreadableImage, OSError):
            continue
        resized = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(resized, cv2.COLOR_RGB2BGR)
        files.append(bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]))
    if not files:
        raise UnusableData("None of the pictures could be read.")
    return files


def part_times(predictor: LiteRTPredictor, files: Sequence[bytes]) -> dict[str, float]:
    """Milliseconds of processor time a picture of each part, over all files once."""
    watch = _Watch()
    for start in range(0, len(files), BATCH):
        block = files[start : start + BATCH]
        with watch("total"):
            predictor.predict([predictor.prepare(file) for file in block])
        with watch("decode"):
            images = [decode(file) for file in block]
        with watch("locate"):
            for image in images:
                choose_window(image)
        with watch("locate_and_prepare"):
            cells = [prepare_cell(image, predictor.card.input_size) for image in images]
        pixels = np.stack([cell.pixels for cell in cells])
        with watch("predict"):
            maps, _ = seen(predictor.runtime, pixels, predictor.card.views)
        best = predictor.head.logits(maps.mean(axis=(1, 2))).argmax(axis=1).tolist()
        with watch("heat_map"):
            heat_maps(maps, predictor.head, best)
        with watch("predict_and_answer"):
            predictor.predict(cells)
        with watch("locate_in_field"):
            for image in images:
                find_leukocytes(image)
    ms = {part: 1000 * seconds / len(files) for part, seconds in watch.seconds.items()}
    return {
        "decode": ms["decode"],
        "locate": ms["locate"],
        "prepare": max(0.0, ms["locate_and_prepare"] - ms["locate"]),
        "predict": ms["predict"],
        "answer": max(0.0, ms["predict_and_answer"] - ms["predict"] - ms["heat_map"]),
        "heat_map": ms["heat_map"],
        "total": ms["total"],
        "locate_in_field": ms["locate_in_field"],
    }


class _Watch:
    """Adds up the processor time of named pieces of work, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - started


def _start_seconds(bundle: Path, picture: Path) -> float:
    """The wall time of `python -m ml predict` on one picture, in seconds."""
    command = [
        sys.executable,
        "-m",
        "ml",
        "predict",
        "--json",
        "--model",
        str(bundle.resolve()),
        str(picture.resolve()),
    ]
    started = time.perf_counter()
    subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
