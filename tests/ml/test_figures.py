import sys

import numpy as np
import pytest
from PIL import Image

from .smears import draw_cell, draw_field

pytest.importorskip("matplotlib", reason="not run: Matplotlib is not installed")


def ink(picture: Image.Image) -> float:
    """The share of a drawing that is not white."""
    return float((np.asarray(picture).min(axis=2) < 250).mean())


def test_every_picture_of_a_grid_is_drawn() -> None:
    from ml.figures import sample_grid

    cells = [draw_cell(64, seed) for seed in range(3)]
    few, many = sample_grid({"Monocyte": cells[:1], "Neutrophil": cells[:1]}), sample_grid({"Monocyte": cells})
    uneven = sample_grid({"Monocyte": cells, "Neutrophil": cells[:1]})
    assert many.width > few.width
    assert uneven.height > many.height
    assert ink(many) > ink(uneven) > 0.2


def test_a_strip_takes_frames_of_any_shape() -> None:
    from ml.figures import strip

    drawn = strip([("frame", draw_field(320, 240, [(100, 90, 60)])), ("cut", draw_cell(64))])
    assert drawn.mode == "RGB"
    assert ink(drawn) > 0.2


def test_curves_of_one_epoch_and_of_many_differ() -> None:
    from ml.figures import training_curves

    row = {"epoch": 1, "loss": 1.2, "accuracy": 0.4, "validation_loss": 1.3, "validation_accuracy": 0.3}
    one = training_curves([row])
    two = training_curves([row, row | {"epoch": 2, "accuracy": 0.9}])
    assert one.size == two.size
    assert np.asarray(one).tobytes() != np.asarray(two).tobytes()


def test_a_confusion_matrix_is_darker_where_more_is_called_so() -> None:
    from ml.figures import confusion_matrix

    right = confusion_matrix({"monocyte": {"monocyte": 9}, "neutrophil": {"neutrophil": 9}})
    absent = confusion_matrix({"monocyte": {"monocyte": 0}, "neutrophil": {"neutrophil": 0}})
    dark = [(np.asarray(drawn)[..., 0] < 60).sum() for drawn in (right, absent)]
    assert dark[0] > 5 * dark[1]


def test_drawing_leaves_matplotlib_without_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    from ml import figures

    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    figures.strip({"cell": draw_cell(64)})
    assert "matplotlib.pyplot" not in sys.modules
