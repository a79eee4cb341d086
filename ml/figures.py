"""Drawings of data and of training, as pictures: a notebook shows them by itself. Imports Matplotlib: training only."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ml.images import Pixels
from ml.labels import display_name

_DOTS_PER_INCH = 110
_TILE = 1.5  # inches


def sample_grid(rows: Mapping[str, Sequence[Pixels]]) -> Image.Image:
    """Draw pictures, RGB uint8 (h, w, 3), one named row of them each: a class, or whatever they have in common."""
    columns = max(len(pictures) for pictures in rows.values())
    figure = Figure((_TILE * columns + 1.6, _TILE * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, pictures) in zip(grid, rows.items(), strict=True):
        for column, place in enumerate(axes):
            place.set_axis_off()
            if column < len(pictures):
                place.imshow(pictures[column])
        axes[0].text(-0.08, 0.5, name, ha="right", va="center", transform=axes[0].transAxes)
    return _drawn(figure)


def strip(pictures: Mapping[str, Pixels] | Sequence[tuple[str, Pixels]]) -> Image.Image:
    """Draw pictures, RGB uint8 (h, w, 3), side by side, each under its title."""
    titled = list(pictures.items()) if isinstance(pictures, Mapping) else list(pictures)
    figure = Figure((_TILE * 1.2 * len(titled), _TILE * 1.4), layout="constrained")
    for place, (title, picture) in zip(figure.subplots(1, len(titled), squeeze=False)[0], titled, strict=True):
        place.imshow(picture)
        place.set_title(title, fontsize=8)
        place.set_axis_off()
    return _drawn(figure)


def training_curves(rows: Sequence[Mapping[str, float]]) -> Image.Image:
    """Draw loss and accuracy by epoch. Each row holds `epoch`, `loss`, `accuracy`, and both of `validation_` too."""
    figure = Figure((9, 3.4), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for place, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        place.plot(epochs, [row[what] for row in rows], marker="o", label="training")
        place.plot(epochs, [row[f"validation_{what}"] for row in rows], marker="s", label="validation")
        place.set_xlabel("epoch")
        place.set_title(what)
        place.xaxis.get_major_locator().set_params(integer=True)
        place.grid(alpha=0.3)
        place.legend()
    return _drawn(figure)


def confusion_matrix(confusion: Mapping[str, Mapping[str, int]], title: str = "") -> Image.Image:
    """Draw how often each true class (rows) was called each class (columns): counts, coloured by their share of the
    row.
    """
    names = sorted({*confusion, *(name for row in confusion.values() for name in row)})
    counts = np.array([[confusion.get(true, {}).get(said, 0) for said in names] for true in names])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure((1.1 * len(names) + 2.2, 0.9 * len(names) + 1.8), layout="constrained")
    place = figure.subplots()
    place.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        place.text(
            column, row, str(count), ha="center", va="center", color="white" if shares[row, column] > 0.5 else "black"
        )
    shown = [display_name(name) for name in names]
    place.set_xticks(range(len(names)), shown, rotation=30, ha="right")
    place.set_yticks(range(len(names)), shown)
    place.set_xlabel("called")
    place.set_ylabel("is")
    place.set_title(title)
    return _drawn(figure)


def _drawn(figure: Figure) -> Image.Image:
    # Without pyplot: no global state, no window, no display needed.
    figure.set_dpi(_DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())
    return Image.fromarray(pixels[..., :3].copy())
