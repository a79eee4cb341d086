"""Decoded, labelled pictures, as training and calibration use them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.dataset import LabelledCell, Scene
from ml.images import Pixels
from ml.preprocess import INPUT_SIZE, resize_square
from ml.progress import say
from ml.scene_cache import cached_scenes


@dataclass(frozen=True)
class Examples:
    """Decoded pictures with their labels (class indices, int64) and sources."""

    scenes: list[Scene]
    labels: NDArray[np.int64]
    sources: list[str]

    def views(self, size: int = INPUT_SIZE) -> NDArray[np.uint8]:
        """The pictures as serving prepares them: uint8 (n, size, size, 3)."""
        return np.stack([serving_view(scene, size) for scene in self.scenes])


def serving_view(scene: Scene, size: int) -> Pixels:
    """Cut the serving window out of a scene and resize it as `ml.preprocess` does."""
    side = round(scene.window)
    start = (scene.pixels.shape[0] - side) // 2
    return resize_square(scene.pixels[start : start + side, start : start + side], size)


def load_examples(cells: Sequence[LabelledCell], labels: Sequence[str]) -> Examples:
    """Decode the pictures of labelled cells; unreadable ones are left out and counted on stderr."""
    scenes = cached_scenes([cell.path for cell in cells])
    kept = [(scene, cell) for scene, cell in zip(scenes, cells, strict=True) if scene is not None]
    if len(kept) < len(cells):
        say(f"left out {len(cells) - len(kept)} unreadable pictures")
    return Examples(
        [scene for scene, _ in kept],
        np.array([labels.index(cell.label) for _, cell in kept], np.int64),
        [cell.source for _, cell in kept],
    )
