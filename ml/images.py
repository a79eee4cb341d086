"""Bytes to pixels: every format that a laboratory or a phone produces, upright, as 8-bit RGB."""

import io
import warnings
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ml.errors import UnreadableImage

# Whoever has many pictures reads them in threads of his own; more inside each only get in the way.
cv2.setNumThreads(1)

Pixels = NDArray[np.uint8]

SMALLEST_SIDE = 32
MOST_PIXELS = 40_000_000
LONGEST_USEFUL_SIDE = 2048
_MOST_AS_FLOATS = 720 * 720  # px: a larger picture and its floats no longer fit the processor's caches

_NOT_READABLE = "This file could not be read as a picture. Please save it again as JPEG or PNG."


@cache
def _register_heic() -> None:
    # Loaded at the first picture: its shared libraries cost start-up time, and it may be absent.
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def decode(data: bytes) -> Pixels:
    """Decode a picture to upright RGB pixels, uint8 (height, width, 3).

    CMYK, palette, grey, 16-bit and transparent pictures are converted (transparency on white), the EXIF orientation is
    applied, and of an animation the first frame is taken.
    Raises UnreadableImage: `unreadable`, `too_small` (a side below 32 px) or `too_large` (above 40 megapixels).
    """
    _register_heic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                _check_size(*image.size)
                if image.format == "JPEG":
                    image.draft("RGB", (LONGEST_USEFUL_SIDE, LONGEST_USEFUL_SIDE))
                ImageOps.exif_transpose(image, in_place=True)
                # A copy of a large picture for nothing would cost as much as decoding it.
                is_plain = image.mode == "RGB" and "transparency" not in image.info
                return np.asarray(image if is_plain else _as_rgb(image))
    except UnreadableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as bomb:
        raise UnreadableImage("too_large", "This picture has more than 40 megapixels. Please crop it.") from bomb
    # Pillow's plugins leak many kinds of error on broken files; each of them means the same to the user.
    except Exception as error:
        raise UnreadableImage("unreadable", _NOT_READABLE) from error


def _check_size(width: int, height: int) -> None:
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadableImage("too_small", "This picture is smaller than 32 pixels on a side.")
    if width * height > MOST_PIXELS:
        raise UnreadableImage("too_large", "This picture has more than 40 megapixels. Please crop it.")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: NDArray[np.generic]) -> Pixels:
    """Scale 12-, 16- or 32-bit grey values to 0..255 by the full range of the smallest depth that holds them."""
    numbers = values.astype(np.float64)
    peak = float(numbers.max(initial=0.0))
    full = next((top for top in (1.0, 255.0, 4095.0, 65535.0) if peak <= top), peak)
    return np.clip(numbers * (255.0 / full), 0, 255).astype(np.uint8)


def shrink(image: Pixels, longest: int) -> Pixels:
    """Return the picture with its longer side at most `longest` px, averaging areas; unchanged if it is smaller."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image
    return average_areas(image, max(1, round(width * factor)), max(1, round(height * factor)))


def average_areas(image: Pixels, width: int, height: int) -> Pixels:
    """Shrink uint8 (h, w, 3) to (height, width, 3), every pixel the mean of the area that it covers."""
    h, w = image.shape[:2]
    # OpenCV adds up such areas in float32 whatever it is given; floats save it a conversion at every step.
    in_floats = width < w and height < h and (w % width or h % height) and h * w <= _MOST_AS_FLOATS
    if not in_floats:
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    means = np.asarray(cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA), np.float32)
    return np.rint(means, out=means).astype(np.uint8)
