"""The one preparation of a picture, for training and for serving alike: locate, cut a square, resize.

A picture of a single centred cell is taken whole. A field (one that is clearly wider than high, or a large square one
with small cells) is cut to a square of half its longer side around its leukocyte: the scale is a property of the
microscope, so it follows the field and not the cell. Where there are several leukocytes, their median size tells the
scale, and each gets a square of the same side.
"""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.images import Pixels, average_areas
from ml.locate import Box, Leukocyte, find_leukocytes

INPUT_SIZE = 150

Found = Literal["single_cell", "one_leukocyte", "several_leukocytes", "no_leukocyte"]

_SQUARE_ASPECT = 1.2
_LARGE_SQUARE = 640
_SMALL_CELL = 0.22  # of the side: in a large square picture such a cell means a whole field
_WINDOW_OF_FIELD = 0.5  # of the field's longer side
_CELL_IN_WINDOW = (0.18, 0.95)  # outside it the field has an unusual scale, and the cell decides
_WINDOW_PER_CELL = 2.12  # window side over cell diameter in the training sets (MODEL: 1 / 0.47)
_LARGEST_CUT = 4096  # px: a thin picture, 32 x 100,000 say, costs no more memory than another
_OFF_CENTRE = 0.1  # of the side: a single cell's stained parts come at least so near to the middle
_BLACK = 14  # darker in all channels and touching the rim: the corner of a rotated picture


@dataclass(frozen=True)
class PreparedCell:
    """One picture made ready for the network.

    `pixels` is RGB uint8 (S, S, 3); `box` the square that was cut, (left, top, right, bottom) in pixels of the upright
    picture and within it, or None where the picture was taken whole; `found` what the locator saw; `leukocytes` the
    boxes of all leukocytes of a field, strongest first, at most 12; `further` the pixels, like `pixels`, of all but the
    first of them; `prepare_ms` how long the preparation took; `shown` is for people, where it was asked for: what
    `shown_part` returns.
    """

    pixels: Pixels
    box: Box | None
    width: int
    height: int
    found: Found
    leukocytes: tuple[Box, ...] = ()
    further: tuple[Pixels, ...] = ()
    prepare_ms: float = 0.0
    shown: Pixels | None = None


@dataclass(frozen=True)
class Window:
    """A square part of a picture: centre and side in pixels. It may reach over the rim."""

    x: float
    y: float
    side: float

    def box(self, width: int, height: int) -> Box:
        """The part of the window within a picture of that size."""
        half = self.side / 2
        return (
            max(0, round(self.x - half)),
            max(0, round(self.y - half)),
            min(width, round(self.x + half)),
            min(height, round(self.y + half)),
        )


def prepare_cell(image: Pixels, size: int = INPUT_SIZE) -> PreparedCell:
    """Prepare an upright RGB picture, uint8 (height, width, 3), for a network of input `size`."""
    height, width = image.shape[:2]
    window, found, leukocytes = choose_window(image)
    if found == "single_cell":
        pixels = resize_square(pad_to_square(fill_black_corners(image)), size)
        return PreparedCell(pixels, None, width, height, found if shows_centred_cell(pixels) else "no_leukocyte")
    whole = fill_black_corners(image)
    windows = [window, *(Window(*leukocyte.centre, window.side) for leukocyte in leukocytes[1:])]
    first, *further = (resize_square(cut_window(whole, each), size) for each in windows)
    boxes = tuple(leukocyte.box for leukocyte in leukocytes)
    return PreparedCell(first, window.box(width, height), width, height, found, boxes, tuple(further))


def shown_part(image: Pixels, cell: PreparedCell, longest: int) -> Pixels:
    """The part of a picture that people are shown in small, RGB uint8 with its longer side at most `longest` px: the
    square that was cut, or all of a picture that was taken whole or has several leukocytes.
    """
    if cell.box and len(cell.leukocytes) < 2:
        left, top, right, bottom = cell.box
        image = image[top:bottom, left:right]
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Down to half the size every pixel still counts, at a tenth of what averaging areas costs.
    method = cv2.INTER_LINEAR if factor > 0.5 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def shows_centred_cell(pixels: Pixels) -> bool:
    """Whether something stained lies in the middle of a prepared square picture, uint8 (S, S, 3)."""
    side = pixels.shape[0]
    near = _OFF_CENTRE * side
    boxes = (leukocyte.box for leukocyte in find_leukocytes(pixels))
    return any(
        left - near <= side / 2 <= right + near and top - near <= side / 2 <= bottom + near
        for left, top, right, bottom in boxes
    )


def network_input(pixels: Pixels) -> NDArray[np.float32]:
    """Scale uint8 pixels (..., S, S, 3) to what the network takes: float32 in [-1, 1]."""
    return pixels.astype(np.float32) * np.float32(1 / 127.5) - np.float32(1)


def choose_window(image: Pixels) -> tuple[Window, Found, list[Leukocyte]]:
    """Return the square to classify, what was found, and the leukocytes of a field (none looked for in a single
    cell).
    """
    height, width = image.shape[:2]
    longest, shortest = max(width, height), min(width, height)
    whole = Window(width / 2, height / 2, longest)
    is_squarish = longest <= _SQUARE_ASPECT * shortest
    if is_squarish and longest < _LARGE_SQUARE:
        return whole, "single_cell", []
    leukocytes = find_leukocytes(image)
    if is_squarish and (not leukocytes or leukocytes[0].diameter > _SMALL_CELL * longest):
        return whole, "single_cell", []
    if not leukocytes:
        return Window(width / 2, height / 2, longest * _WINDOW_OF_FIELD), "no_leukocyte", []
    first = leukocytes[0]
    if len(leukocytes) == 1:
        return Window(*first.centre, field_window_side(first.diameter, longest)), "one_leukocyte", leukocytes
    side = _WINDOW_PER_CELL * float(np.median([leukocyte.diameter for leukocyte in leukocytes]))
    return Window(*first.centre, side), "several_leukocytes", leukocytes


def field_window_side(diameter: float, longest: float) -> float:
    """Return the side of the window in a field whose longer side is `longest` px, for a cell of that diameter in px."""
    side = longest * _WINDOW_OF_FIELD
    low, high = _CELL_IN_WINDOW
    return side if low * side <= diameter <= high * side else diameter * _WINDOW_PER_CELL


def background_colour(image: Pixels) -> NDArray[np.uint8]:
    """Return the colour of the empty background, uint8 (3,): the median of the picture's brightest quarter."""
    small = image[:: max(1, image.shape[0] // 64), :: max(1, image.shape[1] // 64)]
    # Channel by channel: numpy is slow on an inner axis of three.
    channels = small.transpose(2, 0, 1).copy()
    brightness = channels.sum(axis=0, dtype=np.uint16)
    # As `np.percentile` and `np.median` say, in a tenth of their time: the values are few, so they are counted.
    place = 0.75 * (brightness.size - 1)
    low, high = _ranked(brightness, 766, math.floor(place), math.ceil(place))
    bright = (brightness >= low + (place % 1) * (high - low)).view(np.uint8)
    count = cv2.countNonZero(bright)
    middle = ((count - 1) // 2, count // 2)
    return np.array([sum(_ranked(channel, 256, *middle, among=bright)) // 2 for channel in channels], np.uint8)


def _ranked(values: NDArray[np.integer], kinds: int, *places: int, among: Pixels | None = None) -> list[int]:
    """What would stand at these places if the values, whole numbers below `kinds`, were sorted; `among` chooses."""
    not_above = cv2.calcHist([values], [0], among, [kinds], [0, kinds]).cumsum()
    return [int(place) for place in not_above.searchsorted(places, side="right")]


def fill_black_corners(image: Pixels) -> Pixels:
    """Paint the black corners of a rotated or shifted picture with its background; a picture without any is
    returned.
    """
    black = cv2.inRange(image, (0, 0, 0), (_BLACK, _BLACK, _BLACK))
    if cv2.countNonZero(black) / black.size < 0.002:
        return image
    # A black frame joins all that touches the rim, and is filled with it.
    framed = cv2.copyMakeBorder(black, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
    cv2.floodFill(framed, None, (0, 0), 1, flags=8)
    corners = cv2.compare(framed[1:-1, 1:-1], 1, cv2.CMP_EQ)
    if not cv2.countNonZero(corners):
        return image
    # Two more pixels: compression smears the edge.
    corners = cv2.dilate(corners, np.ones((5, 5), np.uint8))
    # Of the rest only what the colour is read from anyway.
    rest = np.flatnonzero(corners == 0)
    read = image.reshape(-1, 3)[rest[:: max(1, len(rest) // 64)]][None]
    colour = background_colour(read) if len(rest) else (255, 255, 255)
    paint = cv2.merge([np.full(black.shape, value, np.uint8) for value in colour])
    return np.asarray(cv2.copyTo(paint, corners, image.copy()), np.uint8)


def cut_window(image: Pixels, window: Window) -> Pixels:
    """Cut a square, uint8 (side, side, 3); what lies over the rim is background. A side above 4,096 px is shrunk to
    that.
    """
    height, width = image.shape[:2]
    if window.side > _LARGEST_CUT:
        left, top, right, bottom = window.box(width, height)
        factor = _LARGEST_CUT / window.side
        size = (max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor)))
        small = np.asarray(cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA), np.uint8)
        return cut_window(small, Window((window.x - left) * factor, (window.y - top) * factor, _LARGEST_CUT))
    side = max(1, round(window.side))
    left, top = round(window.x - side / 2), round(window.y - side / 2)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    inside = image[y0:y1, x0:x1]
    if inside.shape[:2] == (side, side):
        return np.ascontiguousarray(inside)
    rims = (y0 - top, top + side - y1, x0 - left, left + side - x1)
    colour = background_colour(image).tolist()
    return np.asarray(cv2.copyMakeBorder(inside, *rims, cv2.BORDER_CONSTANT, value=colour), np.uint8)


def pad_to_square(image: Pixels) -> Pixels:
    """Return the picture as a square, with background added evenly on its two shorter sides."""
    height, width = image.shape[:2]
    if width == height:
        return image
    return cut_window(image, Window(width / 2, height / 2, max(width, height)))


def resize_square(image: Pixels, size: int) -> Pixels:
    """Resize a square to (size, size, 3): areas are averaged when it shrinks, interpolated when it grows."""
    if image.shape[0] >= size:
        return average_areas(image, size, size)
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
