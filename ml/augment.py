"""Training views of a scene: other turns, scales, backgrounds, stains, focus and compression.

Two strengths. The mild one keeps to one microscope. The strong one imitates other microscopes and stains: it lends
the cell another picture's stain and background (after Shen et al. 2022, MICCAI: RandStainNA), mixes the optical
densities of the three channels (after Tellez et al. 2019, Med Image Anal 58:101544), moves the white point, replaces
the background, and changes scale, focus and compression.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.dataset import Scene
from ml.images import Pixels
from ml.preprocess import background_colour, resize_square

Floats = NDArray[np.float32]

MILD_SHARE = 0.2
_WHITES = np.array([[252, 251, 250], [240, 226, 130], [208, 214, 200], [228, 214, 236]], np.float32)
_WHITE_ODDS = (0.36, 0.28, 0.18, 0.18)


@dataclass(frozen=True)
class Augmentation:
    """How training views differ: mild for `mild_share` of the calls, else strong; `borrowed_share` of the strong ones
    wear the stain of one of `lenders`, RGB uint8 (h, w, 3).
    """

    mild_share: float = MILD_SHARE
    borrowed_share: float = 0.0
    lenders: Sequence[Pixels] = ()

    def view(self, scene: Scene, size: int, random: np.random.Generator) -> Pixels:
        """Return one random view of a scene, uint8 (size, size, 3)."""
        if random.random() < self.mild_share:
            return _mild(scene, size, random)
        lender = None
        if self.lenders and random.random() < self.borrowed_share:
            lender = self.lenders[int(random.integers(len(self.lenders)))]
        return _strong(scene, size, random, lender)


def training_view(scene: Scene, size: int, random: np.random.Generator, mild_share: float = MILD_SHARE) -> Pixels:
    """Return one random view of a scene, uint8 (size, size, 3), in its own stain."""
    return Augmentation(mild_share).view(scene, size, random)


def _mild(scene: Scene, size: int, random: np.random.Generator) -> Pixels:
    view = _turned(scene, size, random, scale=float(random.uniform(0.74, 1.4)), stretch=0.0, shift=0.06)
    colours = view.astype(np.float32)
    colours = _hue_and_saturation(colours, random, hue=0.06, saturation=0.3)
    colours = 255 * np.power(np.clip(colours / 255, 0, 1), np.float32(np.exp(random.normal(0, 0.15))))
    colours *= np.exp(random.normal(0, 0.06, 3)).astype(np.float32)
    return _to_pixels(colours)


def _strong(scene: Scene, size: int, random: np.random.Generator, lender: Pixels | None) -> Pixels:
    scale = float(np.exp(random.uniform(np.log(0.55), np.log(1.6))))
    view = _turned(scene, size, random, scale, stretch=0.08, shift=0.06)
    colours = view.astype(np.float32)
    if lender is not None:
        colours = _borrowed_stain(colours, lender, random)
    white = background_colour(_to_pixels(colours)).astype(np.float32)
    if random.random() < 0.4:
        colours = _other_background(colours, white, random)
    if random.random() < 0.7:
        colours = _other_stain(colours, white, random)
    if random.random() < 0.5:
        colours = _hue_and_saturation(colours, random, hue=0.4, saturation=0.6)
    if random.random() < 0.5:
        colours = 255 * np.power(np.clip(colours / 255, 0, 1), np.float32(np.exp(random.normal(0, 0.3))))
    if random.random() < 0.1:
        colours = np.repeat(colours.mean(axis=2, keepdims=True), 3, axis=2)
    return _optics(_to_pixels(colours), random)


def _turned(scene: Scene, size: int, random: np.random.Generator, scale: float, stretch: float, shift: float) -> Pixels:
    """Turn, mirror, shift and scale. `scale` is the side of the view over the serving window."""
    side = max(32, round(scene.window * scale))
    angle = random.uniform(0, 2 * np.pi)
    aspect = float(np.exp(random.normal(0, stretch))) if stretch else 1.0
    mirror = -1.0 if random.random() < 0.5 else 1.0
    cosine, sine = np.cos(angle), np.sin(angle)
    linear = np.array([[cosine * aspect * mirror, -sine], [sine * aspect * mirror, cosine]])
    centre = scene.pixels.shape[0] / 2 + random.uniform(-shift, shift, 2) * scene.window
    offset = centre - linear @ np.array([side / 2, side / 2])
    rim = random.random()
    border = cv2.BORDER_CONSTANT if rim < 0.5 else cv2.BORDER_REFLECT if rim < 0.8 else cv2.BORDER_REPLICATE
    fill = tuple(int(value) for value in background_colour(scene.pixels))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(
        scene.pixels, np.column_stack([linear, offset]), (side, side), flags=flags, borderMode=border, borderValue=fill
    )
    return resize_square(turned.astype(np.uint8, copy=False), size)


def _borrowed_stain(colours: Floats, lender: Pixels, random: np.random.Generator) -> Floats:
    """Give the picture the background of another, and move its densest parts towards that one's densities."""
    step = max(1, lender.shape[0] // 64)
    own_density = -np.log(np.clip(colours, 2, 255) / 255)
    background, cell = _background_and_cell(own_density)
    lent_density = -np.log(np.clip(lender[::step, ::step].astype(np.float32), 2, 255) / 255)
    lent_background, lent_cell = _background_and_cell(lent_density)
    gain = (lent_cell - lent_background) / np.maximum(cell - background, 0.05)
    gain = np.clip(gain, 0.4, 2.5) ** np.float32(random.uniform(0.4, 1.0))
    return np.asarray(255 * np.exp(-(lent_background + (own_density - background) * gain)), np.float32)


def _background_and_cell(density: Floats) -> tuple[Floats, Floats]:
    """The optical densities (3,) of the palest 30 % and of the densest 12 % of a picture's pixels."""
    total = density.sum(axis=2)
    palest, densest = np.percentile(total, (30, 88))
    return np.median(density[total <= palest], axis=0), density[total >= densest].mean(axis=0)


def _other_background(colours: Floats, white: Floats, random: np.random.Generator) -> Floats:
    """Fade or replace what is not the central cell."""
    size = colours.shape[0]
    score = np.minimum(colours[..., 0], colours[..., 2]) - colours[..., 1] + (colours[..., 2] - colours[..., 0]) / 2
    score = cv2.GaussianBlur(np.clip(score, 0, 255), (0, 0), 1.5)
    limit, _ = cv2.threshold(score.astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    _, marks, stats, centres = cv2.connectedComponentsWithStats((score > max(limit, 12)).astype(np.uint8))
    if len(stats) < 2:
        return colours
    far = np.hypot(*(centres[1:] - size / 2).T) - np.sqrt(stats[1:, cv2.CC_STAT_AREA])
    reach = round(size * random.uniform(0.05, 0.12)) * 2 + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    cell = cv2.dilate((marks == 1 + int(np.argmin(far))).astype(np.float32), kernel)
    cell = cv2.GaussianBlur(cell, (0, 0), 2.5)[..., None]
    if random.random() < 0.5:
        around = white + (colours - white) * np.float32(random.uniform(0, 0.6))
    else:
        around = np.broadcast_to(white, colours.shape)
        if random.random() < 0.5:
            coarse = random.normal(0, random.uniform(3, 14), (9, 9, 3)).astype(np.float32)
            around = around + cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(colours * cell + around * (1 - cell), np.float32)


def _other_stain(colours: Floats, white: Floats, random: np.random.Generator) -> Floats:
    """Mix, amplify and bend the optical densities relative to the background, and give a new white point."""
    density = -np.log(np.clip(colours, 2, 255) / np.maximum(white, 20))
    mixing = np.eye(3) + random.normal(0, 0.13, (3, 3))
    gains = np.exp(random.normal(0, 0.22, 3)) * np.exp(random.normal(0, 0.25))
    density = density @ (mixing * gains).astype(np.float32)
    if random.random() < 0.4:
        density = np.sign(density) * np.abs(density) ** np.float32(np.exp(random.normal(0, 0.2)))
    new_white = white
    if random.random() < 0.65:
        chosen = _WHITES[random.choice(len(_WHITES), p=_WHITE_ODDS)]
        new_white = np.clip(chosen + random.normal(0, 9, 3), 90, 255).astype(np.float32)
    return np.asarray(new_white * np.exp(-density), np.float32)


def _hue_and_saturation(colours: Floats, random: np.random.Generator, hue: float, saturation: float) -> Floats:
    """Turn the chroma plane by up to `hue` radians and scale it by up to 1 +- `saturation`."""
    angle = random.uniform(-hue, hue)
    factor = random.uniform(1 - saturation, 1 + saturation)
    grey = colours.mean(axis=2, keepdims=True)
    cosine, third, sine = np.cos(angle), (1 - np.cos(angle)) / 3, np.sin(angle) / np.sqrt(3)
    turn = np.full((3, 3), third) + np.eye(3) * cosine
    turn += np.array([[0, -sine, sine], [sine, 0, -sine], [-sine, sine, 0]])
    return np.asarray(grey + (colours - grey) @ (turn.T * factor).astype(np.float32), np.float32)


def _optics(view: Pixels, random: np.random.Generator) -> Pixels:
    """Coarser sampling, defocus or sharpening, compression, noise."""
    size = view.shape[0]
    if random.random() < 0.3:
        small = round(size * random.uniform(0.35, 0.9))
        view = _resized(_resized(view, small), size)
    focus = random.random()
    if focus < 0.2:
        view = cv2.GaussianBlur(view, (0, 0), random.uniform(0.5, 2.2)).astype(np.uint8, copy=False)
    elif focus < 0.32:
        soft = cv2.GaussianBlur(view, (0, 0), 1.5)
        amount = random.uniform(0.3, 1.5)
        view = cv2.addWeighted(view, 1 + amount, soft, -amount, 0).astype(np.uint8, copy=False)
    if random.random() < 0.2:
        _, code = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(25, 91))])
        view = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    if random.random() < 0.3:
        noise = random.standard_normal(view.shape, np.float32) * np.float32(random.uniform(1, 9))
        view = _to_pixels(view.astype(np.float32) + noise)
    return view


def _resized(view: Pixels, side: int) -> Pixels:
    return np.asarray(cv2.resize(view, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _to_pixels(colours: Floats) -> Pixels:
    return np.clip(colours, 0, 255).astype(np.uint8)
