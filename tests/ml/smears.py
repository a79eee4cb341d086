"""Blood smears drawn from circles: enough like the real thing for tests that must run without any data set."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

BACKGROUND = (232, 222, 214)
RED_CELL = (208, 160, 150)
NUCLEUS = (92, 46, 140)
CYTOPLASM = (188, 160, 204)


def draw_field(width: int, height: int, leukocytes: list[tuple[int, int, int]], seed: int = 0) -> Pixels:
    """Return an RGB field with red cells and leukocytes at (x, y, diameter), all in pixels."""
    random = np.random.default_rng(seed)
    field = np.full((height, width, 3), BACKGROUND, np.uint8)
    radius = max(4, width // 26)
    for _ in range(width * height // (radius * radius * 9)):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        cv2.circle(field, (x, y), radius, RED_CELL, -1, cv2.LINE_AA)
        cv2.circle(field, (x, y), radius // 3, BACKGROUND, -1, cv2.LINE_AA)
    for x, y, diameter in leukocytes:
        cv2.circle(field, (x, y), diameter // 2, CYTOPLASM, -1, cv2.LINE_AA)
        cv2.circle(field, (x, y), round(diameter * 0.36), NUCLEUS, -1, cv2.LINE_AA)
    noise = random.normal(0, 3, field.shape)
    return np.clip(field + noise, 0, 255).astype(np.uint8)


def draw_cell(side: int = 224, seed: int = 0) -> Pixels:
    """Return a square RGB picture of one centred leukocyte."""
    return draw_field(side, side, [(side // 2, side // 2, round(side * 0.4))], seed)


def encoded(pixels: Pixels, form: str = "PNG", **options: object) -> bytes:
    """Return an RGB picture as the bytes of a file."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, form, **options)
    return target.getvalue()
