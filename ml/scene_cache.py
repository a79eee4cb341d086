"""Decoded scenes kept on disk: the second run on the same pictures starts in a second.

What is kept is named after the pictures (path, size, time of change) and after the code that prepares them, so that a
change of either makes it anew. Anything in the cache folder can be deleted at any time.
"""

import hashlib
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ml import dataset, images, locate, preprocess
from ml.data_folder import cache_folder
from ml.dataset import Scene, load_scenes
from ml.progress import say

_MOST_KEPT = 4
_PREPARED_BY = (dataset, images, locate, preprocess)


def cached_scenes(paths: Sequence[Path], folder: Path | None = None) -> list[Scene | None]:
    """Return what `load_scenes` returns, from the cache where it is there; None for a picture that can't be read."""
    folder = folder or cache_folder() / "scenes"
    kept = folder / f"{_name_of(paths)}.npy"
    try:
        return _read(kept)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        scenes = load_scenes(paths)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(scenes, kept)
        _forget_oldest(folder)
    except OSError:
        say("The decoded pictures could not be kept for the next run.")
    return scenes


def _name_of(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for module in _PREPARED_BY:
        digest.update(Path(str(module.__file__)).read_bytes())
    for path in paths:
        state = path.stat()
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:24]


def _read(kept: Path) -> list[Scene | None]:
    with np.load(kept.with_suffix(".npz"), allow_pickle=False) as table:
        sides, windows = table["sides"], table["windows"]
    # Mapped, and not read: pictures come into memory as they are used.
    pixels = np.load(kept, mmap_mode="r", allow_pickle=False)
    ends = np.cumsum(sides.astype(np.int64) ** 2 * 3)
    if len(pixels) != (ends[-1] if len(ends) else 0):
        raise ValueError("The kept pictures are not whole.")
    return [
        Scene(pixels[end - side * side * 3 : end].reshape(side, side, 3), float(window)) if side else None
        for end, side, window in zip(ends.tolist(), sides.tolist(), windows, strict=True)
    ]


def _write(scenes: Sequence[Scene | None], kept: Path) -> None:
    sides = np.array([scene.pixels.shape[0] if scene else 0 for scene in scenes], np.int64)
    windows = np.array([scene.window if scene else 0.0 for scene in scenes])
    fresh, table = kept.with_suffix(".part"), kept.with_suffix(".npz.part")
    try:
        total = int((sides**2 * 3).sum())
        file = np.lib.format.open_memmap(fresh, mode="w+", dtype=np.uint8, shape=(total,))
        end = 0
        for scene in scenes:
            if scene is not None:
                file[end : end + scene.pixels.size] = scene.pixels.ravel()
                end += scene.pixels.size
        file.flush()
        del file
        fresh.replace(kept)
        # Last, since it is what a reader asks for first.
        with table.open("wb") as whole:
            np.savez(whole, allow_pickle=False, sides=sides, windows=windows)
        table.replace(kept.with_suffix(".npz"))
    finally:
        fresh.unlink(missing_ok=True)
        table.unlink(missing_ok=True)


def _forget_oldest(folder: Path) -> None:
    by_age = sorted(folder.glob("*.npy"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_age[_MOST_KEPT:]:
        with suppress(OSError):
            old.with_suffix(".npz").unlink(missing_ok=True)
            old.unlink()
