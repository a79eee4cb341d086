"""A fixed set of pictures that are no cells, and what a model makes of them.

The gate was fitted to `ml.junk`. Nothing here is drawn by the same code, so that the figures are not flattering. No
photographs are shipped: scenes are drawn. Red cells are real where the BCCD fields of the Kaggle test photographs are
at hand: parts of these fields in which the locator finds nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ml.images import Pixels, decode
from ml.intervals import wilson
from ml.locate import Box, find_leukocytes
from ml.originals import test_photographs
from ml.predictor import CellPrediction, Predictor
from ml.progress import Progress

PER_KIND = 48
REFUSALS = {"not_a_cell", "no_leukocyte", "unfamiliar_microscope"}
_SEED = 20260
_BATCH = 8
_MARGIN = 20  # px, kept from a leukocyte's box
_SHAPES = ((224, 224), (363, 360), (240, 320), (480, 640))  # height, width: single cells, and fields to search
_PART_OF_FIELD = ((240, 320), (300, 300))
_LETTERS = "abcdefghijklmnoprstuvwy"

Floats = NDArray[np.float64]
Draw = Callable[[int, int, np.random.Generator], Pixels]


def junk_trial(predictor: Predictor, data: Path) -> dict[str, Any]:
    """Return what the model makes of the fixed set, as fractions 0..1 with Wilson's intervals, in all and by kind.

    `refused` counts pictures that are said to be no cell, without a leukocyte, or of an unfamiliar microscope;
    `labelled` those that get a class. The rest is left to the reader as not sure, or as several leukocytes.
    """
    pictures = list(junk_set(data))
    progress = Progress("junk", len(pictures))
    answers: dict[str, list[CellPrediction]] = {}
    for start in range(0, len(pictures), _BATCH):
        block = pictures[start : start + _BATCH]
        predictions = predictor.predict([predictor.prepare(content) for _, content in block])
        for (kind, _), prediction in zip(block, predictions, strict=True):
            answers.setdefault(kind, []).append(prediction)
        progress.advance(len(block))
    kinds = {kind: _figures(own) for kind, own in answers.items()}
    return {**_figures([one for own in answers.values() for one in own]), "kinds": kinds}


def _figures(predictions: Sequence[CellPrediction]) -> dict[str, Any]:
    n = len(predictions)
    refused = sum(prediction.reason_code in REFUSALS for prediction in predictions)
    low, high = wilson(refused, n)
    return {
        "n": n,
        "refused": refused / n,
        "refused_low": low,
        "refused_high": high,
        "labelled": sum(prediction.label is not None for prediction in predictions) / n,
    }


def junk_set(data: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, JPEG or PNG file) of every picture of the set: the same ones every time, from the same `data`."""
    for index, (kind, draw) in enumerate(_KINDS.items()):
        for number in range(PER_KIND):
            random = np.random.default_rng([_SEED, index, number])
            yield kind, _file(draw(*_SHAPES[number % len(_SHAPES)], random), number)
    for number, picture in enumerate(fields_without_leukocyte(data, PER_KIND)):
        yield "red_cells_real", _file(picture, number)


def fields_without_leukocyte(data: Path, count: int) -> Iterator[Pixels]:
    """Yield at most `count` parts of BCCD fields without a leukocyte; nothing where the fields are not at hand."""
    kaggle, fields = data / "kaggle-blood-cells", data / "bccd" / "JPEGImages"
    if not (kaggle / "test_originals.csv").is_file() or not fields.is_dir():
        return
    random = np.random.default_rng(_SEED)
    given = 0
    for name in sorted(set(test_photographs(kaggle).values())):
        path = fields / f"{name}.jpg"
        if not path.is_file() or given == count:
            continue
        field = decode(path.read_bytes())
        height, width = _PART_OF_FIELD[given % len(_PART_OF_FIELD)]
        boxes = [leukocyte.box for leukocyte in find_leukocytes(field)]
        for _ in range(40):
            top = int(random.integers(0, field.shape[0] - height + 1))
            left = int(random.integers(0, field.shape[1] - width + 1))
            if not any(_is_near(box, left, top, left + width, top + height) for box in boxes):
                yield field[top : top + height, left : left + width]
                given += 1
                break


def _is_near(box: Box, left: int, top: int, right: int, bottom: int) -> bool:
    return box[2] + _MARGIN > left and box[0] - _MARGIN < right and box[3] + _MARGIN > top and box[1] - _MARGIN < bottom


def _file(picture: Pixels, number: int) -> bytes:
    form, options = ((".png", []), (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]))[number % 2]
    return bytes(cv2.imencode(form, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1])


def _cloud(height: int, width: int, random: np.random.Generator, slope: float = 1.0) -> Floats:
    """A random texture (height, width) in 0..1 with amplitudes that fall as frequency to the power of `slope`."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    phase = np.exp(2j * np.pi * random.random(frequency.shape))
    texture = np.fft.irfft2(phase * frequency**-slope, s=(height, width))
    low, high = np.percentile(texture, (1, 99))
    return np.asarray(np.clip((texture - low) / (high - low), 0, 1), np.float64)


def _blend(share: Floats, first: Sequence[float], second: Sequence[float]) -> Floats:
    return np.asarray(first) * (1 - share[..., None]) + np.asarray(second) * share[..., None]


def _pixels(colours: Floats) -> Pixels:
    return np.clip(colours, 0, 255).astype(np.uint8)


def _colour(random: np.random.Generator, low: int = 0, high: int = 256) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in random.integers(low, high, 3))
    return red, green, blue


def _scene(height: int, width: int, random: np.random.Generator) -> Pixels:
    """A landscape: sky with clouds, hills, a house or trees."""
    sky = _blend(_cloud(height, width, random, 1.4), (90, 140, 210), (235, 235, 240))
    picture = _pixels(sky)
    for layer in range(3):
        rise = np.cumsum(random.normal(0, 1, width))
        line = height * (0.45 + 0.18 * layer) + 4 * (rise - rise.mean())
        ground = np.arange(height)[:, None] > line[None]
        tone = _blend(_cloud(height, width, random, 0.8), _colour(random, 20, 120), _colour(random, 80, 200))
        picture[ground] = _pixels(tone)[ground]
    for _ in range(int(random.integers(1, 5))):
        x, y, side = int(random.integers(width)), int(height * random.uniform(0.5, 0.8)), int(random.integers(15, 60))
        cv2.rectangle(picture, (x, y), (x + side, y + side), _colour(random, 60), -1)
        roof = np.array([(x - 4, y), (x + side + 4, y), (x + side // 2, y - side // 2)], np.int32)
        cv2.fillPoly(picture, [roof], _colour(random), cv2.LINE_AA)
    return picture


def _surface(height: int, width: int, random: np.random.Generator) -> Pixels:
    """Cloth, wood, leaves, skin: a texture between two colours, with folds."""
    stretch = float(random.uniform(1, 6))
    cloud = cv2.resize(
        _cloud(height, max(16, round(width / stretch)), random, random.uniform(0.5, 1.5)), (width, height)
    )
    folds = np.sin(np.linspace(0, random.uniform(2, 40), width))[None] * random.uniform(0, 40)
    return _pixels(_blend(cloud, _colour(random), _colour(random)) + folds[..., None])


def _text(height: int, width: int, random: np.random.Generator) -> Pixels:
    """A page of printed words, some of them in columns or inverted."""
    paper, ink = _colour(random, 200), _colour(random, 0, 90)
    page = Image.new("RGB", (width, height), paper if random.random() < 0.8 else ink)
    fill = ink if page.getpixel((0, 0)) == paper else paper
    draw = ImageDraw.Draw(page)
    size = int(random.integers(9, 30))
    font = ImageFont.load_default(size)
    for y in range(6, height, round(size * 1.4)):
        words = ["".join(random.choice(list(_LETTERS), random.integers(1, 10))) for _ in range(width // size)]
        draw.text((6, y), " ".join(words), fill, font)
    return np.asarray(page, np.uint8)


def _noise(height: int, width: int, random: np.random.Generator) -> Pixels:
    match int(random.integers(4)):
        case 0:
            return random.integers(0, 256, (height, width, 3)).astype(np.uint8)
        case 1:
            grains = random.random((height, width))
            return np.repeat(np.where(grains < 0.1, 0, np.where(grains > 0.9, 255, 128))[..., None], 3, 2).astype(
                np.uint8
            )
        case 2:
            slope = random.uniform(0, 2)
            return _pixels(255 * np.stack([_cloud(height, width, random, slope) for _ in range(3)], axis=2))
        case _:
            stripes = random.integers(0, 256, (height, 1, 3))
            return np.repeat(stripes, width, axis=1).astype(np.uint8)


def _flat(height: int, width: int, random: np.random.Generator) -> Pixels:
    plain = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (150, 80, 160), (230, 200, 210))
    colour = plain[int(random.integers(len(plain)))] if random.random() < 0.4 else _colour(random)
    return np.full((height, width, 3), colour, np.uint8)


def _gradient(height: int, width: int, random: np.random.Generator) -> Pixels:
    """Rings of several colours around a point."""
    x, y = random.uniform(0, width), random.uniform(0, height)
    reach = np.hypot(np.arange(width)[None] - x, np.arange(height)[:, None] - y)
    stops = np.linspace(0, reach.max(), int(random.integers(2, 6)))
    colours = random.integers(0, 256, (len(stops), 3))
    return _pixels(np.stack([np.interp(reach, stops, colours[:, channel]) for channel in range(3)], axis=2))


def _tissue(height: int, width: int, random: np.random.Generator) -> Pixels:
    """A section in haematoxylin and eosin: pink stroma, white gaps, violet nuclei at any magnification."""
    stroma = _blend(_cloud(height, width, random, 1.1), (250, 225, 235), (214, 120, 165))
    gaps = _cloud(height, width, random, 1.6) < random.uniform(0.02, 0.25)
    stroma[gaps] = (246, 242, 246)
    picture = _pixels(stroma)
    radius = max(2, round(max(height, width) * float(np.exp(random.uniform(np.log(0.008), np.log(0.06))))))
    for _ in range(int(height * width / radius**2 * random.uniform(0.03, 0.12)) + 6):
        place = (int(random.integers(width)), int(random.integers(height)))
        axes = (max(1, round(radius * random.uniform(0.7, 1.4))), max(1, round(radius * random.uniform(0.5, 1.0))))
        shade = random.integers(-25, 25)
        colour = (int(110 + shade), int(65 + shade), int(145 + shade))
        cv2.ellipse(picture, place, axes, float(random.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    grain = random.normal(0, 5, picture.shape)
    return _pixels(cv2.GaussianBlur(picture, (0, 0), random.uniform(0.4, 1.4)) + grain)


def _red_cells(height: int, width: int, random: np.random.Generator) -> Pixels:
    """A smear without any leukocyte: pink discs with a pale middle, some overlapping, a few platelets."""
    picture = np.full((height, width, 3), _colour(random, 205, 246), np.uint8)
    radius = max(6, round(max(height, width) * random.uniform(0.04, 0.1)))
    tone = np.array((205, 150, 150)) + random.integers(-20, 20, 3)
    for _ in range(int(height * width / radius**2 * random.uniform(0.1, 0.3)) + 3):
        place = (int(random.integers(width)), int(random.integers(height)))
        axes = (radius, max(2, round(radius * random.uniform(0.75, 1))))
        layer = picture.copy()
        cv2.ellipse(layer, place, axes, float(random.uniform(0, 180)), 0, 360, tone.tolist(), -1, cv2.LINE_AA)
        cv2.circle(layer, place, round(radius * 0.4), (tone + 30).tolist(), -1, cv2.LINE_AA)
        picture = cv2.addWeighted(picture, 0.25, layer, 0.75, 0).astype(np.uint8)
    for _ in range(int(random.integers(0, 4))):
        place = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(picture, place, max(1, radius // 5), (140, 100, 170), -1, cv2.LINE_AA)
    return _pixels(cv2.GaussianBlur(picture, (0, 0), random.uniform(0.5, 1.5)) + random.normal(0, 4, picture.shape))


def _blank(height: int, width: int, random: np.random.Generator) -> Pixels:
    """Glass without cells: even light that falls off towards the rim, dust, grain."""
    across, down = np.linspace(-1, 1, width)[None], np.linspace(-1, 1, height)[:, None]
    light = 1 - random.uniform(0, 0.3) * (across**2 + down**2)
    picture = np.array(_colour(random, 200, 250)) * light[..., None]
    for _ in range(int(random.integers(0, 6))):
        place = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(picture, place, int(random.integers(1, 5)), _colour(random, 90, 180), -1, cv2.LINE_AA)
    return _pixels(picture + random.normal(0, random.uniform(0, 6), (height, width, 3)))


_KINDS: Mapping[str, Draw] = {
    "drawn_scenes": _scene,
    "surfaces": _surface,
    "text": _text,
    "noise": _noise,
    "flat": _flat,
    "gradients": _gradient,
    "tissue": _tissue,
    "red_cells_drawn": _red_cells,
    "blank_field": _blank,
}
