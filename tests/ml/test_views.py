import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ml.errors import ModelUnavailable
from ml.heat_map import grad_cam
from ml.model_card import CARD_FILE, read_card
from ml.predictor import LiteRTPredictor
from ml.runtime import Output
from ml.views import as_served, seen, turned, turned_back

from .smears import draw_cell, encoded


class Counting:
    """A runtime whose map of a square is the square itself, in two channels; notes how many squares it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def run(self, pixels: np.ndarray) -> Output:
        self.given.append(len(pixels))
        maps = pixels[..., :2].astype(np.float32)
        return Output(maps, np.zeros((len(pixels), 3), np.float32), maps[:, 0, 0])


def squares(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)


def test_the_eight_views_are_all_different_and_the_first_is_as_it_lies() -> None:
    square = squares(1)[0]
    views = turned(square)
    assert views.shape == (8, 6, 6, 3)
    assert np.array_equal(views[0], square)
    assert len({view.tobytes() for view in views}) == 8


def test_a_map_turned_back_lies_as_the_square_did() -> None:
    square = squares(1)[0]
    back = turned_back(turned(square).astype(np.float32))
    assert all(np.array_equal(own, square) for own in back)


def test_one_view_is_one_run_of_the_network_and_eight_are_eight() -> None:
    one, eight = Counting(), Counting()
    pixels = squares(5)
    maps, texture = seen(one, pixels, 1)  # type: ignore[arg-type]
    assert np.array_equal(maps, pixels[..., :2])
    assert np.array_equal(texture, pixels[:, 0, 0, :2])
    # A network that sees the same whatever way it lies has the same map from eight sides.
    maps, texture = seen(eight, pixels, 8)  # type: ignore[arg-type]
    assert np.allclose(maps, pixels[..., :2])
    corners = pixels[:, [0, 0, -1, -1], [0, -1, 0, -1], :2]
    assert np.allclose(texture, corners.mean(axis=1))
    assert sum(one.given) == 5
    # One square at a time: a batch of the worker must not be eight batches in memory.
    assert eight.given == [8] * 5


def test_eight_views_say_the_same_of_a_cell_however_it_lies(predictor: LiteRTPredictor) -> None:
    square = predictor.prepare(encoded(draw_cell(150, 3))).pixels
    lying = turned(square)
    of_one, of_eight = (seen(predictor.runtime, lying, views)[0].mean(axis=(1, 2)) for views in (1, 8))
    assert np.abs(of_eight - of_eight[0]).max() < 1e-4
    assert np.abs(of_one - of_one[0]).max() > 1e-2


def test_the_mean_of_the_maps_has_the_mean_of_the_features(predictor: LiteRTPredictor) -> None:
    """Fitting takes the mean of the features of each view, serving pools the mean of the maps."""
    pixels = np.stack([predictor.prepare(encoded(draw_cell(150, seed))).pixels for seed in (1, 2)])
    pooled = np.stack([predictor.runtime.run(turned(square))[0].mean(axis=(1, 2)) for square in pixels])
    for views in (1, 8):
        assert np.allclose(
            seen(predictor.runtime, pixels, views)[0].mean(axis=(1, 2)), as_served(pooled, views), atol=1e-4
        )


def test_a_heat_map_from_eight_sides_turns_with_the_cell(predictor: LiteRTPredictor) -> None:
    square = predictor.prepare(encoded(draw_cell(150, 4))).pixels
    upright, lying = seen(predictor.runtime, np.stack([square, np.rot90(square)]), 8)[0]
    label = int(predictor.head.logits(upright.mean(axis=(0, 1))[None]).argmax())
    heat = grad_cam(upright, predictor.head, label)
    assert heat.max() > 0
    assert np.allclose(grad_cam(lying, predictor.head, label), np.rot90(heat), atol=1e-3 * heat.max())


def test_the_closed_form_heat_map_of_eight_views_agrees_with_gradient_tape(predictor: LiteRTPredictor) -> None:
    tf = pytest.importorskip("tensorflow", reason="not run: TensorFlow is not installed")
    square = predictor.prepare(encoded(draw_cell(150, 4))).pixels
    views = turned_back(predictor.runtime.run(turned(square))[0])
    w1, b1, w2, b2 = (tf.constant(part) for part in dataclasses.astuple(predictor.head))
    for label in range(len(predictor.card.labels)):
        maps = tf.constant(views)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            mean = tf.reduce_mean(maps, axis=0)
            hidden = tf.nn.relu(tf.reduce_mean(mean, axis=(0, 1))[None] @ w1 + b1)
            chosen = (hidden @ w2 + b2)[0, label]
        # What the logit owes to the mean is what it owes to all eight together.
        alpha = tf.reduce_mean(tf.reduce_sum(tape.gradient(chosen, maps), axis=0), axis=(0, 1))
        expected = tf.nn.relu(tf.reduce_sum(mean * alpha, axis=-1)).numpy()
        assert np.abs(grad_cam(views.mean(axis=0), predictor.head, label) - expected).max() < 1e-4


def with_views(bundle: Path, folder: Path, views: object) -> Path:
    copy = Path(shutil.copytree(bundle, folder / "bundle"))
    card = json.loads((copy / CARD_FILE).read_text())
    (copy / CARD_FILE).write_text(json.dumps({**card, "views": views}))
    return copy


@pytest.mark.parametrize("views", [0, 4, 9, "8", None, [8]])
def test_a_card_with_another_number_of_views_is_incompatible(bundle: Path, tmp_path: Path, views: object) -> None:
    with pytest.raises(ModelUnavailable) as refusal:
        read_card(with_views(bundle, tmp_path, views))
    assert refusal.value.code == "model_incompatible"


def test_a_card_that_says_nothing_of_views_has_one(bundle: Path, tmp_path: Path) -> None:
    assert read_card(with_views(bundle, tmp_path, 8)).views == 8
    card = json.loads((bundle / CARD_FILE).read_text())
    card.pop("views", None)
    (tmp_path / CARD_FILE).write_text(json.dumps(card))
    assert read_card(tmp_path).views == 1


def test_a_field_is_looked_at_from_eight_sides_too(predictor: LiteRTPredictor) -> None:
    from_all_sides = LiteRTPredictor(
        dataclasses.replace(predictor.card, views=8), predictor.runtime, predictor.head, predictor.gate
    )
    cells = [predictor.prepare(encoded(draw_cell(150, seed))) for seed in (5, 6)]
    field = dataclasses.replace(
        cells[0],
        leukocytes=((0, 0, 9, 9), (9, 9, 18, 18)),
        found="several_leukocytes",
        further=(cells[1].pixels,),
    )
    alone = from_all_sides.predict(cells)
    in_field = from_all_sides.predict([field])[0].leukocytes
    assert [found.confidence for found in in_field] == pytest.approx([each.confidence for each in alone], abs=1e-5)
    assert [each.confidence for each in predictor.predict(cells)] != pytest.approx(
        [each.confidence for each in alone], abs=1e-3
    )
