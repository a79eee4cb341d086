"""Find the stained leukocytes in a field of red cells.

Nuclei are violet in every Romanowsky stain: poor in green, richer in blue than in red. Against a white background the
score `min(R, B) - G + (B - R) / 2` is high there, and low on red cells, plasma and the black corners of rotated
pictures; divided by the brightness it is as high on the dark nucleus of a small lymphocyte as on a pale one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.images import Pixels, shrink

THUMBNAIL = 160
MOST_LEUKOCYTES = 12  # of one field: what the further ones cost stays bounded

_WHITE = 235.0  # the background after balancing
_DARKEST = 64.0  # added to the brightness, so that noise in the dark is not made large
_LEAST_SCORE = 30.0  # of a stained pixel, on the scale 0..255
_LEAST_MEAN = 36.0  # of a leukocyte: folded red cells stay below it
_OTSU_SHARE = 0.8  # of Otsu's threshold: pale nuclei beside dark ones lie below it
_MOST_STAINED = 0.35  # of the picture: beyond it the red cells are violet too, and only the darker part counts
_SMALLEST_SHARE = 0.0025  # of the thumbnail's area: below it, platelets and specks
_SECOND_SHARE = 0.2  # a further leukocyte has this share of the strongest one's summed stain,
_SECOND_MEAN = 0.65  # and this share of its mean stain
_COMPACT = 0.54  # of its enclosing circle: what fills more of it is one cell
_SMALLER_CELL = 0.5  # radius of a touching cell over the larger one's
_NECK = 0.75  # width between touching cells over the smaller one's
_NOTCH = 0.33  # share of empty background beside the neck; between the lobes of one nucleus is cytoplasm
_LOBE_NOTCH = 0.2  # so little of it at most between separate lobes,
_LOBE_GAP = 0.4  # whose gap is this share of the smaller one's diameter at most
_EMPTY = 215.0  # green of what is background
_NUCLEUS_TO_CELL = 1.12  # boxes of stained parts, widened to the cell

Box = tuple[int, int, int, int]
Floats = NDArray[np.float32]

_ALL_VALUES = np.arange(256, dtype=np.float32)  # of a channel
_LOBES_JOINED = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


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


@dataclass(frozen=True)
class _Stain:
    """A connected stained part of the thumbnail: `inside` is uint8 0 or 1, with its corner at (`left`, `top`)."""

    left: int
    top: int
    inside: Pixels
    strength: float
    area: int

    @property
    def mean(self) -> float:
        return self.strength / self.area

    @property
    def right(self) -> int:
        return self.left + int(self.inside.shape[1])

    @property
    def bottom(self) -> int:
        return self.top + int(self.inside.shape[0])

    @property
    def diameter(self) -> float:
        """Of a disc of the same area."""
        return 2 * float(np.sqrt(self.area / np.pi))

    def gap(self, other: "_Stain") -> float:
        """The distance between the boxes."""
        across = max(self.left, other.left) - min(self.right, other.right)
        down = max(self.top, other.top) - min(self.bottom, other.bottom)
        return float(np.hypot(max(across, 0), max(down, 0)))


def balance_white(image: Pixels) -> tuple[Floats, Floats, Floats]:
    """Return red, green and blue of an RGB picture (h, w, 3), each float32 (h, w) in 0..255, with the picture's
    brightest quarter at 235.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # Counting the 256 values takes a fraction of what ordering the pixels does.
    not_above = cv2.calcHist([grey], [0], None, [256], [0, 256]).cumsum()
    brightest = int(not_above.searchsorted(grey.size * 3 // 4, side="right"))
    white = np.array(cv2.mean(image, cv2.compare(grey, brightest, cv2.CMP_GE))[:3], np.float32)
    factors = (_WHITE / np.maximum(white, 80)).astype(np.float32)
    tables = np.minimum(np.outer(factors, _ALL_VALUES), np.float32(255))
    red, green, blue = (cv2.LUT(channel, table) for channel, table in zip(cv2.split(image), tables, strict=True))
    return red, green, blue


def stain_score(red: Floats, green: Floats, blue: Floats) -> Floats:
    """Return how violet each pixel of a balanced picture is, float32 (h, w) in 0..255, smoothed."""
    violet = np.asarray(cv2.min(red, blue), np.float32)
    violet -= green
    bluer = blue - red
    bluer *= 0.5
    violet += bluer
    np.maximum(violet, 0, out=violet)
    brightness = np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)
    brightness += _DARKEST
    violet *= np.divide(255, brightness, out=brightness)
    return np.asarray(cv2.GaussianBlur(violet, (0, 0), 1.6), np.float32)


def find_leukocytes(image: Pixels) -> list[Leukocyte]:
    """Return the leukocytes of a field, the most strongly stained first and at most 12; an empty list if there is none.

    `image` is RGB uint8 (height, width, 3). Boxes lie within the picture. Touching cells are told apart; the lobes of
    one nucleus are not.
    """
    small = shrink(image, THUMBNAIL)
    factor = max(image.shape[:2]) / max(small.shape[:2])
    red, green, blue = balance_white(small)
    score = stain_score(red, green, blue)
    is_empty = green > _EMPTY
    whole = _lobes_joined(list(_stains(score)), score, is_empty)
    found = [cell for stain in whole for cell in _touching_cells(stain, score, is_empty)]
    found.sort(key=lambda stain: stain.strength, reverse=True)
    cells = [
        stain
        for stain in found
        if stain.mean >= max(_LEAST_MEAN, _SECOND_MEAN * found[0].mean)
        and stain.strength >= _SECOND_SHARE * found[0].strength
    ]
    return [Leukocyte(_cell_box(stain, factor, image.shape), stain.strength) for stain in cells[:MOST_LEUKOCYTES]]


def _stains(score: Floats) -> Iterator[_Stain]:
    """The connected stained parts that are large enough for a leukocyte."""
    # Below 255, since no channel is and the brightness is larger by `_DARKEST` than the brightest.
    levels = score.astype(np.uint8)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    is_stained = score > max(_OTSU_SHARE * otsu, _LEAST_SCORE)
    if np.count_nonzero(is_stained) / is_stained.size > _MOST_STAINED:
        otsu, _ = cv2.threshold(levels[is_stained], 0, 255, cv2.THRESH_OTSU)
        is_stained = score > max(otsu, _LEAST_SCORE)
    mask = cv2.morphologyEx(is_stained.view(np.uint8), cv2.MORPH_CLOSE, _LOBES_JOINED)
    # The fastest of them on small pictures; 16 bits hold more marks than a thumbnail has parts.
    _, marks, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_16U, cv2.CCL_GRANA)
    for mark in np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= _SMALLEST_SHARE * mask.size) + 1:
        left, top, width, height, _ = stats[mark].tolist()
        yield _stain(marks[top : top + height, left : left + width] == mark, left, top, score)


def _stain(inside: NDArray[np.bool_], left: int, top: int, score: Floats) -> _Stain:
    height, width = inside.shape
    strength = float(score[top : top + height, left : left + width][inside].sum())
    return _Stain(left, top, inside.view(np.uint8), strength, int(np.count_nonzero(inside)))


def _lobes_joined(stains: list[_Stain], score: Floats, is_empty: NDArray[np.bool_]) -> list[_Stain]:
    """Put the lobes of a nucleus together: stained parts close to each other with no background beside the gap."""
    stains = sorted(stains, key=lambda stain: stain.strength, reverse=True)[: 2 * MOST_LEUKOCYTES]
    for number, first in enumerate(stains):
        for other in stains[number + 1 :]:
            if first.gap(other) > _LOBE_GAP * min(first.diameter, other.diameter):
                continue
            both = _united(first, other, score)
            outlines, _ = cv2.findContours(both.inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            if _empty_share(both, *cv2.minEnclosingCircle(np.concatenate(outlines)), is_empty) < _LOBE_NOTCH:
                rest = [stain for stain in stains if stain is not first and stain is not other]
                return _lobes_joined([both, *rest], score, is_empty)
    return stains


def _united(first: _Stain, other: _Stain, score: Floats) -> _Stain:
    left, top = min(first.left, other.left), min(first.top, other.top)
    right, bottom = max(first.right, other.right), max(first.bottom, other.bottom)
    inside = np.zeros((bottom - top, right - left), np.bool_)
    for stain in (first, other):
        inside[stain.top - top : stain.bottom - top, stain.left - left : stain.right - left] |= stain.inside > 0
    return _stain(inside, left, top, score)


def _touching_cells(stain: _Stain, score: Floats, is_empty: NDArray[np.bool_]) -> list[_Stain]:
    """Cut a stained part into its cells: one, unless it has a neck with background beside it."""
    outlines, _ = cv2.findContours(stain.inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    centre, radius = cv2.minEnclosingCircle(np.concatenate(outlines))
    if stain.area > _COMPACT * np.pi * radius**2:
        return [stain]
    circles = _inscribed_circles(stain.inside, outlines)
    if len(circles) < 2 or _empty_share(stain, centre, radius, is_empty) < _NOTCH:
        return [stain]
    rows, columns = np.nonzero(stain.inside)
    beyond = np.stack([np.hypot(columns - x, rows - y) - r for x, y, r in circles])
    owner = np.zeros(stain.inside.shape, np.uint8)
    owner[rows, columns] = 1 + beyond.argmin(axis=0)
    cells = []
    for number in range(1, len(circles) + 1):
        left, top, width, height = cv2.boundingRect((owner == number).astype(np.uint8))
        inside = owner[top : top + height, left : left + width] == number
        cells.append(_stain(inside, stain.left + left, stain.top + top, score))
    return cells


def _inscribed_circles(inside: Pixels, outlines: Sequence[Any]) -> list[tuple[float, float, float]]:
    """(x, y, radius) of the largest circles in a shape that are of like size and have a neck between them."""
    filled = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED, offset=(1, 1))
    depth = cv2.distanceTransform(filled, cv2.DIST_L2, 5)
    left_over = depth.copy()
    circles: list[tuple[float, float, float]] = []
    while True:
        _, radius, _, (x, y) = cv2.minMaxLoc(left_over)
        if radius < 3 or (circles and radius < _SMALLER_CELL * circles[0][2]):
            return [(x - 1, y - 1, radius) for x, y, radius in circles]
        if all(_neck(depth, (x, y), other[:2]) <= _NECK * min(radius, other[2]) for other in circles):
            circles.append((x, y, radius))
        cv2.circle(left_over, (x, y), round(1.6 * radius), 0, cv2.FILLED)


def _neck(depth: Floats, first: tuple[float, float], second: tuple[float, float]) -> float:
    """The least depth on the line between two points."""
    steps = np.linspace(0, 1, int(np.hypot(first[0] - second[0], first[1] - second[1])) + 2)
    columns = np.rint(first[0] + steps * (second[0] - first[0])).astype(int)
    rows = np.rint(first[1] + steps * (second[1] - first[1])).astype(int)
    return float(depth[rows, columns].min())


def _empty_share(stain: _Stain, centre: tuple[float, float], radius: float, is_empty: NDArray[np.bool_]) -> float:
    """The share of empty background in the enclosing circle of a stained part, as far as it is not stained."""
    around = np.zeros(is_empty.shape, np.uint8)
    middle = (round(stain.left + centre[0]), round(stain.top + centre[1]))
    cv2.circle(around, middle, round(0.85 * radius), 1, cv2.FILLED)
    height, width = stain.inside.shape
    window = (slice(stain.top, stain.top + height), slice(stain.left, stain.left + width))
    around[window][cv2.dilate(stain.inside, np.ones((3, 3), np.uint8)) > 0] = 0
    count = cv2.countNonZero(around)
    return cv2.countNonZero(cv2.bitwise_and(around, is_empty.view(np.uint8))) / count if count else 0.0


def _cell_box(stain: _Stain, factor: float, shape: tuple[int, ...]) -> Box:
    height, width = (side * factor for side in stain.inside.shape)
    left, top = stain.left * factor, stain.top * factor
    more_x, more_y = width * (_NUCLEUS_TO_CELL - 1) / 2, height * (_NUCLEUS_TO_CELL - 1) / 2
    return (
        max(0, round(left - more_x)),
        max(0, round(top - more_y)),
        min(shape[1], round(left + width + more_x)),
        min(shape[0], round(top + height + more_y)),
    )
