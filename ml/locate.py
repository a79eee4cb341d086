"""Find the stained leukocytes in a field of red cells.

Nuclei are violet in every Romanowsky stain: poor in green, richer in blue than in red. The score
`min(R, B) - G + (B - R) / 2` is high there and low on red cells, plasma and the black corners of rotated pictures.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.images import Pixels, shrink

THUMBNAIL = 160
_SMALLEST_SHARE = 0.0030  # of the thumbnail's area: below it, platelets and specks
_LEAST_SCORE = 18.0  # on the scale 0..255: below it, nothing violet is in the picture
_SECOND_SHARE = 0.45  # a further blob this large, relative to the largest, is a further leukocyte
_NUCLEUS_TO_CELL = 1.12  # boxes of stained parts, widened to the cell

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Leukocyte:
    """One stained cell: `box` is (left, top, right, bottom) in pixels of the picture, `strength` its summed stain."""

    box: Box
    strength: float

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box, (x, y) in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def diameter(self) -> float:
        """The mean of the box's sides, in pixels."""
        left, top, right, bottom = self.box
        return (right - left + bottom - top) / 2


def stain_score(image: Pixels) -> NDArray[np.float32]:
    """Return how violet each pixel of an RGB picture (h, w, 3) is, float32 (h, w) in 0..255, smoothed."""
    red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
    score = np.minimum(red, blue) - green + (blue - red) / 2
    return np.asarray(cv2.GaussianBlur(np.maximum(score, 0), (0, 0), 1.6), np.float32)


def find_leukocytes(image: Pixels) -> list[Leukocyte]:
    """Return the leukocytes of a field, the most strongly stained first; an empty list if there is none.

    `image` is RGB uint8 (height, width, 3). Boxes lie within the picture.
    """
    small = shrink(image, THUMBNAIL)
    factor = max(image.shape[:2]) / max(small.shape[:2])
    score = stain_score(small)
    threshold, _ = cv2.threshold(np.clip(score, 0, 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    mask = (score > max(threshold, _LEAST_SCORE)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    count, marks, stats, _ = cv2.connectedComponentsWithStats(mask)
    strengths = np.bincount(marks.ravel(), weights=score.ravel(), minlength=count)
    found = [
        Leukocyte(_cell_box(stats[mark], factor, image.shape[:2]), float(strengths[mark]))
        for mark in range(1, count)
        if stats[mark, cv2.CC_STAT_AREA] >= _SMALLEST_SHARE * mask.size
    ]
    found.sort(key=lambda leukocyte: leukocyte.strength, reverse=True)
    return [leukocyte for leukocyte in found if leukocyte.strength >= _SECOND_SHARE * found[0].strength]


def _cell_box(stat: NDArray[np.int32], factor: float, shape: tuple[int, ...]) -> Box:
    left, top, width, height = (float(value) * factor for value in stat[:4])
    more_x, more_y = width * (_NUCLEUS_TO_CELL - 1) / 2, height * (_NUCLEUS_TO_CELL - 1) / 2
    return (
        max(0, round(left - more_x)),
        max(0, round(top - more_y)),
        min(shape[1], round(left + width + more_x)),
        min(shape[0], round(top + height + more_y)),
    )
