from pathlib import Path

import numpy as np
import pytest

from ml.dataset import Scene
from ml.examples import Examples
from ml.recipe import Recipe

from .smears import draw_cell

pytest.importorskip("tensorflow", reason="not run: TensorFlow is not installed")

RECIPE = Recipe(steps=3, batch=4, warm_up=1, check_every=2, source_weights=(("pbc", 0.75), ("raabin", 0.25)))


@pytest.fixture(scope="module")
def examples() -> Examples:
    scenes = [Scene(draw_cell(seed=seed), 224.0) for seed in range(24)]
    return Examples(scenes, np.arange(24) % 3, ["pbc"] * 18 + ["raabin"] * 6)


def test_batches_are_the_same_for_a_seed_and_balance_the_sources(examples: Examples) -> None:
    from ml.train import ViewBatches

    first, second = (list(ViewBatches(examples, RECIPE, size=32)) for _ in range(2))
    assert len(first) == RECIPE.steps
    for (views, labels), (views_again, labels_again) in zip(first, second, strict=True):
        assert views.shape == (4, 32, 32, 3)
        assert np.array_equal(views, views_again)
        assert np.array_equal(labels, labels_again)
    chances = ViewBatches(examples, RECIPE, size=32).chances
    assert chances.sum() == pytest.approx(1)
    assert chances[18:].sum() == pytest.approx(0.25)


def test_a_short_training_changes_the_right_layers_and_keeps_a_log(examples: Examples, tmp_path: Path) -> None:
    from ml.network import backbone_of
    from ml.train import HEAD_WEIGHTS, train_network

    network = train_network(examples, examples, 3, RECIPE, None, tmp_path)
    trained = {layer.name: layer.trainable for layer in backbone_of(network).layers}
    assert not trained["Conv1"]
    assert trained["block_3_expand"]
    assert trained["Conv_1"]
    log = (tmp_path / "training.csv").read_text().splitlines()
    assert log[0] == "step,seconds,loss,validation_accuracy,pbc,raabin"
    assert [line.split(",")[0] for line in log[1:]] == ["2", "3"]
    assert (tmp_path / HEAD_WEIGHTS).exists()
    assert all(np.isfinite(weight).all() for weight in network.get_weights())
