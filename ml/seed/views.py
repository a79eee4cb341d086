"""The seed's augmentation: what a frame could have looked like as well."""

from dataclasses import dataclass

import cv2
import numpy as np

from ml.images import Pixels


@dataclass(frozen=True)
class Ranges:
    """How far a view may go: `rotation` in degrees, `zoom`, `shift` and `brightness` as fractions, all either way;
    `upside_down` says whether it is also mirrored vertically.
    """

    rotation: float
    zoom: float
    shift: float
    brightness: float
    upside_down: bool


USUAL = Ranges(rotation=20, zoom=0.2, shift=0.0, brightness=0.0, upside_down=False)
MORE = Ranges(rotation=180, zoom=0.2, shift=0.1, brightness=0.2, upside_down=True)


def random_view(frame: Pixels, random: np.random.Generator, ranges: Ranges = USUAL) -> Pixels:
    """Return a random view of a frame, uint8 (S, S, 3): mirrored, turned, zoomed and shifted; the rim is drawn out over
    what lies outside.
    """
    side = frame.shape[0]
    turn = cv2.getRotationMatrix2D(
        ((side - 1) / 2, (side - 1) / 2),
        random.uniform(-ranges.rotation, ranges.rotation),
        1 / random.uniform(1 - ranges.zoom, 1 + ranges.zoom),
    )
    turn[:, 2] += random.uniform(-ranges.shift, ranges.shift, 2) * side
    view = cv2.warpAffine(frame, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if random.random() < 0.5:
        view = view[:, ::-1]
    if ranges.upside_down and random.random() < 0.5:
        view = view[::-1]
    gain = random.uniform(1 - ranges.brightness, 1 + ranges.brightness)
    return np.asarray(view if gain == 1 else np.clip(view * gain, 0, 255), np.uint8)
