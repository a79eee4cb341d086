"""Draws a stored heat map as a transparent overlay of the picture's shape."""

import io
from collections.abc import Sequence

from PIL import Image

# Black-body colours run from dark to bright, so that the map reads without telling red from green.
STOPS = ((0, 0, 0), (120, 0, 60), (230, 60, 20), (255, 170, 0), (255, 245, 160))
LONGEST_SIDE = 720
STRONGEST_OPACITY = 170


def draw(values: Sequence[Sequence[float]], *, box: Sequence[int] | None, width: int, height: int) -> bytes:
    """PNG bytes of the heat map.

    `values` are rows of numbers from 0 to 1 that cover `box` (left, top, right, bottom in pixels of a picture of
    `width` x `height`), or the whole picture where there is no box. The result has the picture's shape, at most 720
    pixels long; the hotter a place, the less transparent it is.
    """
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top, right, bottom = (round(edge * scale) for edge in (box or (0, 0, width, height)))
    small = Image.new("L", (len(values[0]), len(values)))
    small.putdata([round(255 * min(1.0, max(0.0, value))) for row in values for value in row])
    heat = Image.new("L", size)
    heat.paste(small.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC), (left, top))
    channels = [heat.point([shade(level, channel) for level in range(256)]) for channel in range(3)]
    opacity = heat.point([level * STRONGEST_OPACITY // 255 for level in range(256)])
    buffer = io.BytesIO()
    Image.merge("RGBA", (*channels, opacity)).save(buffer, "PNG")
    return buffer.getvalue()


def shade(level: int, channel: int) -> int:
    place = level / 255 * (len(STOPS) - 1)
    low = min(int(place), len(STOPS) - 2)
    between = place - low
    return round(STOPS[low][channel] * (1 - between) + STOPS[low + 1][channel] * between)
