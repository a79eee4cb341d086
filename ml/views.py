"""What the network sees of a square from one side, or from eight: fitting and serving both look through here.

To the eye a cell is the same however it lies, to the network nearly so. The mean over the eight ways to lay the square
down takes that difference out of the features: what is left tells cells apart, and not how they lay. A fit to few cells
also looks at them from nearer and from farther off, so that it does not learn their size by heart.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.images import Pixels
from ml.runtime import Output, Runtime

Floats = NDArray[np.float32]

ONE, ALL = 1, 8
_QUARTERS = range(4)
_SCALES = (0.85, 0.92, 1.08, 1.18)


def turned(pixels: Pixels) -> NDArray[np.uint8]:
    """Return the eight ways to lay down a square picture, uint8 (8, S, S, 3), the first as it is."""
    return np.stack([np.rot90(side, quarter) for side in (pixels, pixels[:, ::-1]) for quarter in _QUARTERS])


def zoomed(pixels: Pixels) -> NDArray[np.uint8]:
    """Return each of the eight `turned` pictures at two of four other scales, uint8 (16, S, S, 3); a smaller one is
    filled up from its rim.
    """
    turns = turned(pixels)
    scales = [_SCALES[(turn + offset) % len(_SCALES)] for offset in (0, 2) for turn in range(ALL)]
    return np.stack([_scaled(view, scale) for view, scale in zip((*turns, *turns), scales, strict=True)])


def _scaled(view: Pixels, scale: float) -> Pixels:
    side = view.shape[0]
    shift = (1 - scale) * (side - 1) / 2
    about_the_centre = np.array([[scale, 0, shift], [0, scale, shift]])
    return np.asarray(cv2.warpAffine(view, about_the_centre, (side, side), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def turned_back(maps: Floats) -> Floats:
    """Return the feature maps (8, h, h, d) of `turned` squares as the first of them lies."""
    upright = [np.rot90(own, -quarter) for own, quarter in zip(maps, (*_QUARTERS, *_QUARTERS), strict=True)]
    return np.stack([*upright[:4], *(own[:, ::-1] for own in upright[4:])])


def seen(runtime: Runtime, squares: NDArray[np.uint8], views: int) -> tuple[Floats, Floats]:
    """Return the feature map (n, h, h, d) and the texture (n, t) of each square (n, S, S, 3), n >= 1, as a bundle of so
    many views serves them.

    With eight views both are means of eight; one square at a time, so that memory holds eight maps and never 8 n.
    """
    if views == ONE:
        output = runtime.run(squares)
        return output.maps, output.texture
    means = [_mean_of_all(runtime.run(turned(square))) for square in squares]
    maps, textures = zip(*means, strict=True)
    return np.stack(maps), np.stack(textures)


def _mean_of_all(output: Output) -> tuple[Floats, Floats]:
    return turned_back(output.maps).mean(axis=0), output.texture.mean(axis=0)


def as_served(features: Floats, views: int) -> Floats:
    """Return the features (n, d) that a bundle of so many views serves; those given (n, 8, d) are of each view."""
    return features[:, 0] if views == ONE else np.asarray(features.mean(axis=1), np.float32)
