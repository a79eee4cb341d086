"""Pictures that are no cells, drawn: what the gate learns to refuse. What it is tested on is in `ml.junk_trial`.

They are prepared as uploads are, so that the gate learns the squares that the locator cuts out of them.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.images import Pixels
from ml.preprocess import prepare_cell

Doubles = NDArray[np.float64]

_WORDS = "report 12.4 g/dl"
# The white of the slide, eosin, haematoxylin, the blue and the violet of Romanowsky stains, and a yellow lamp.
_STAINS = ((245, 240, 240), (225, 130, 165), (80, 60, 130), (90, 110, 190), (110, 40, 130), (215, 190, 90))
# Height and width of what is uploaded: single cells, and fields to search.
_SHAPES = ((120, 120), (224, 224), (363, 360), (360, 363), (575, 575), *[(240, 320), (480, 640)] * 2)
_GRAINS = (0.5, 1.0, 1.0, 2.0)  # of the picture drawn over the one wanted: coarse or fine
_LARGEST_DRAWN = 480


def drawn_junk(count: int, size: int, seed: int = 78) -> list[Pixels]:
    """Return `count` prepared pictures, uint8 (size, size, 3), of flat colour, gradients, noise of any grain, shapes,
    text, stripes, patchwork, layers, spots on a mottled ground, fibres, blurred shapes, things that cover each other,
    and a thing before a ground; half of the colours are those of stains.
    """
    random = np.random.default_rng(seed)
    kinds = (
        *(_flat, _gradient, _coarse_noise, _fine_noise, _shapes, _patchwork, _spots, _stripes, _blurred, _mottled),
        *(*[_layers, _fibres] * 2, *[_leaves, _thing] * 3),
    )
    return [_prepared(kinds[number % len(kinds)], size, random) for number in range(count)]


def _prepared(draw: Callable[[int, np.random.Generator], Pixels], size: int, random: np.random.Generator) -> Pixels:
    height, width = _SHAPES[int(random.integers(len(_SHAPES)))]
    side = max(height, width)
    picture = draw(min(_LARGEST_DRAWN, round(side * random.choice(_GRAINS))), random)
    picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)[:height, :width]
    if random.random() < 0.5:
        _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(40, 95))])
        picture = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return prepare_cell(np.ascontiguousarray(picture), size).pixels


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    if random.random() < 0.5:
        red, green, blue = (int(value) for value in random.integers(0, 256, 3))
        return red, green, blue
    pale, part = _STAINS[0], random.random()
    deep = _STAINS[int(random.integers(1, len(_STAINS)))]
    red, green, blue = (
        int(np.clip(a * (1 - part) + b * part + random.normal(0, 12), 0, 255)) for a, b in zip(pale, deep, strict=True)
    )
    return red, green, blue


def _flat(size: int, random: np.random.Generator) -> Pixels:
    return np.full((size, size, 3), _colour(random), np.uint8)


def _gradient(size: int, random: np.random.Generator) -> Pixels:
    way = np.linspace(0, 1, size)
    slope = way[:, None] * random.normal() + way[None] * random.normal()
    share = ((slope - slope.min()) / max(float(np.ptp(slope)), 1e-6))[..., None]
    return np.asarray(np.array(_colour(random)) * (1 - share) + np.array(_colour(random)) * share, np.uint8)


def _coarse_noise(size: int, random: np.random.Generator) -> Pixels:
    grain = int(random.integers(2, 40))
    noise = random.integers(0, 256, (grain, grain, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def _fine_noise(size: int, random: np.random.Generator) -> Pixels:
    noise = random.normal(0, random.uniform(2, 60), (size, size, 3))
    return np.clip(np.array(_colour(random)) + noise, 0, 255).astype(np.uint8)


def _shapes(size: int, random: np.random.Generator) -> Pixels:
    picture = _flat(size, random)
    for _ in range(int(random.integers(2, 25))):
        first, second = (tuple(int(value) for value in random.integers(0, size, 2)) for _ in range(2))
        radii = tuple(int(value) for value in random.integers(4, 60, 2))
        match int(random.integers(4)):
            case 0:
                cv2.line(picture, first, second, _colour(random), int(random.integers(1, 8)), cv2.LINE_AA)
            case 1:
                cv2.rectangle(picture, first, second, _colour(random), -1)
            case 2:
                cv2.putText(picture, _WORDS, first, 0, random.uniform(0.4, 1.6), _colour(random), 2, cv2.LINE_AA)
            case _:
                cv2.ellipse(picture, first, radii, 0, 0, 360, _colour(random), 2)
    return picture


def _mottled(size: int, random: np.random.Generator) -> Pixels:
    """Noise of several grains on top of each other, between two colours."""
    share = np.zeros((size, size))
    for grain in (3, 7, 15, 40):
        noise = random.random((grain, grain))
        share += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC) * random.uniform(0.2, 1)
    share = ((share - share.min()) / max(float(np.ptp(share)), 1e-6))[..., None]
    return np.asarray(np.array(_colour(random)) * (1 - share) + np.array(_colour(random)) * share, np.uint8)


def _patchwork(size: int, random: np.random.Generator) -> Pixels:
    """Polygons of mottled grounds: what photographs are made of."""
    picture = _mottled(size, random)
    for _ in range(int(random.integers(2, 7))):
        corners = random.integers(-size // 4, size + size // 4, (int(random.integers(3, 7)), 1, 2)).astype(np.int32)
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [cv2.convexHull(corners)], 1)
        picture[mask > 0] = _mottled(size, random)[mask > 0]
    return picture


def _spots(size: int, random: np.random.Generator) -> Pixels:
    """Many spots of one colour, small or large, on a mottled ground: as in sections of tissue, or leaves."""
    picture, colour = _mottled(size, random), np.array(_colour(random))
    radius = float(np.exp(random.uniform(np.log(2), np.log(size / 10))))
    for _ in range(int(random.integers(12, 12 + size))):
        place = tuple(int(value) for value in random.integers(0, size, 2))
        axes = tuple(max(1, round(radius * value)) for value in random.uniform(0.5, 1.5, 2))
        shade = np.clip(colour + random.integers(-20, 20, 3), 0, 255).tolist()
        cv2.ellipse(picture, place, axes, random.uniform(0, 180), 0, 360, shade, -1, cv2.LINE_AA)
    return picture


def _layers(size: int, random: np.random.Generator) -> Pixels:
    """Mottled or shaded layers above each other with wavy rims, and a few things in front: as in a view outdoors."""
    picture = _gradient(size, random)
    across, down = np.arange(size), np.arange(size)[:, None]
    for height in np.sort(random.uniform(0.1, 1, int(random.integers(1, 5)))) * size:
        waves = sum(
            random.normal(0, size / 12 / n) * np.sin(across * 2 * np.pi * n / size + random.uniform(0, 6))
            for n in range(1, 6)
        )
        ground = _mottled(size, random) if random.random() < 0.7 else _gradient(size, random)
        below = down > height + waves
        picture[below] = ground[below]
    for _ in range(int(random.integers(0, 5))):
        place = tuple(int(value) for value in random.integers(0, size, 2))
        axes = tuple(int(value) for value in random.integers(3, size // 4, 2))
        cv2.ellipse(picture, place, axes, random.uniform(0, 180), 0, 360, _colour(random), -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), random.uniform(0.3, 2)), np.uint8)


def _fibres(size: int, random: np.random.Generator) -> Pixels:
    """A mottled ground drawn out along one way, with many dark bodies along it: as in sections of tissue."""
    ground = _mottled(size, random)
    length = int(random.integers(2, size // 5)) * 2 + 1
    drawn_out = cv2.blur(ground, (length, 1) if random.random() < 0.5 else (1, length))
    picture = np.asarray(cv2.addWeighted(ground, 0.4, drawn_out, 0.6, 0), np.uint8)
    angle, body = random.uniform(0, 180), np.array(_colour(random)) * random.uniform(0.4, 0.9)
    radius = float(np.exp(random.uniform(np.log(2), np.log(size / 9))))
    for _ in range(int(np.clip(random.uniform(0.05, 0.5) * size * size / (radius * radius * 4), 4, 400))):
        place = tuple(int(value) for value in random.integers(0, size, 2))
        axes = (max(1, round(radius * random.uniform(0.8, 1.8))), max(1, round(radius * random.uniform(0.4, 1))))
        shade = np.clip(body + random.normal(0, 14, 3), 0, 255).tolist()
        cv2.ellipse(picture, place, axes, angle + random.normal(0, 25), 0, 360, shade, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), random.uniform(0.3, 1.5)), np.uint8)


def _leaves(size: int, random: np.random.Generator) -> Pixels:
    """Things of every size that cover each other ("dead leaves"; Lee et al. 2001, IJCV: much like photographs)."""
    picture, colours = _mottled(size, random), [np.array(_colour(random)) for _ in range(int(random.integers(2, 9)))]
    smallest, largest = random.uniform(2, 6), size * random.uniform(0.1, 0.5)
    slope = 1 - random.uniform(1.5, 3.2)
    shares = random.random(int(random.integers(60, 500)))
    radii = (smallest**slope + shares * (largest**slope - smallest**slope)) ** (1 / slope)
    outline = (_oval, _slab, _splinter)[int(random.integers(3))]
    shade = random.uniform(2, 18)
    for radius in radii:
        colour = np.clip(colours[int(random.integers(len(colours)))] + random.normal(0, shade, 3), 0, 255)
        outline_of_it = outline(random.uniform(0, size, 2), max(1.0, float(radius)), random)
        cv2.fillPoly(picture, [outline_of_it.astype(np.int32)], colour.tolist(), cv2.LINE_AA)
    if random.random() < 0.6:
        ground = _mottled(size, random).astype(np.float32)
        picture = np.clip(picture + (ground - ground.mean(axis=(0, 1))) * random.uniform(0.1, 0.6), 0, 255)
    return np.asarray(cv2.GaussianBlur(picture.astype(np.uint8), (0, 0), random.uniform(0.3, 2.5)), np.uint8)


def _oval(centre: Doubles, radius: float, random: np.random.Generator) -> Doubles:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return _turned(np.column_stack([np.cos(turn), np.sin(turn) * random.uniform(0.4, 1)]), random) * radius + centre


def _slab(centre: Doubles, radius: float, random: np.random.Generator) -> Doubles:
    height = random.uniform(0.3, 1)
    return _turned(np.array([(-1, -height), (1, -height), (1, height), (-1, height)]), random) * radius + centre


def _splinter(centre: Doubles, radius: float, random: np.random.Generator) -> Doubles:
    corners = int(random.integers(3, 8))
    turn, reach = np.sort(random.uniform(0, 2 * np.pi, corners)), random.uniform(0.5, 1.3, corners)
    return np.column_stack([np.cos(turn), np.sin(turn)]) * reach[:, None] * radius + centre


def _turned(outline: Doubles, random: np.random.Generator) -> Doubles:
    angle = random.uniform(0, np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.asarray(outline @ np.array([[cosine, sine], [-sine, cosine]]), np.float64)


def _thing(size: int, random: np.random.Generator) -> Pixels:
    """One to three things with soft outlines before a ground: what photographs are taken of."""
    picture = (_mottled, _mottled, _gradient, _leaves)[int(random.integers(4))](size, random)
    for _ in range(int(random.integers(1, 4))):
        bumps = int(random.integers(5, 12))
        reach = size * random.uniform(0.08, 0.4) * random.uniform(0.6, 1.3, bumps)
        turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        around = np.interp(turn, np.linspace(0, 2 * np.pi, bumps + 1), [*reach, reach[0]])
        around = np.convolve([*around[-4:], *around, *around[:4]], np.ones(9) / 9, "valid")
        outline = np.column_stack([np.cos(turn), np.sin(turn)]) * around[:, None] + size * random.uniform(0.25, 0.75, 2)
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [outline.astype(np.int32)], 1)
        inside = (_mottled, _leaves, _gradient, _flat, _stripes, _fibres)[int(random.integers(6))](size, random)
        picture[mask > 0] = inside[mask > 0]
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), random.uniform(0.3, 2)), np.uint8)


def _stripes(size: int, random: np.random.Generator) -> Pixels:
    wave = np.sin(np.arange(size) * 2 * np.pi / random.uniform(3, size / 2))
    wave = np.sign(wave) if random.random() < 0.5 else wave
    share = np.broadcast_to((wave + 1) / 2, (size, size))[..., None]
    picture = np.array(_colour(random)) * (1 - share) + np.array(_colour(random)) * share
    return np.asarray(np.rot90(picture) if random.random() < 0.5 else picture, np.uint8)


def _blurred(size: int, random: np.random.Generator) -> Pixels:
    return np.asarray(cv2.GaussianBlur(_shapes(size, random), (0, 0), random.uniform(2, size / 6)), np.uint8)
