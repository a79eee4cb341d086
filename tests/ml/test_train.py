from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ml.dataset import Scene
from ml.errors import UnusableData
from ml.examples import Examples
from ml.preprocess import INPUT_SIZE
from ml.recipe import Recipe, Stage

from .smears import draw_cell

pytest.importorskip("tensorflow", reason="not run: TensorFlow is not installed")

RECIPE = Recipe(
    stages=(Stage(32, 2, (("pbc", 1.0),)), Stage(64, 2, (("pbc", 0.75), ("raabin", 0.25)))),
    batch=4,
    warm_up=1,
    check_every=3,
)


@pytest.fixture(autouse=True)
def no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml.train.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture(scope="module")
def examples() -> Examples:
    scenes = [Scene(draw_cell(seed=seed), 224.0) for seed in range(24)]
    return Examples(scenes, np.arange(24) % 3, ["pbc"] * 18 + ["raabin"] * 6)


def test_batches_are_the_same_for_a_seed_and_balance_the_sources(examples: Examples) -> None:
    from ml.train import ViewBatches, chances_of

    first, second = (list(ViewBatches(examples, RECIPE, RECIPE.stages[0], first=0, last=3)) for _ in range(2))
    later = list(ViewBatches(examples, RECIPE, RECIPE.stages[0], first=2, last=3))
    assert len(first) == 3
    for (views, labels), (views_again, labels_again) in zip([*first, first[2]], [*second, later[0]], strict=True):
        assert views.shape == (4, 32, 32, 3)
        assert np.array_equal(views, views_again)
        assert np.array_equal(labels, labels_again)
    chances = chances_of(examples, RECIPE.stages[1].source_weights)
    assert chances.sum() == pytest.approx(1)
    assert chances[18:].sum() == pytest.approx(0.25)
    assert chances_of(examples, RECIPE.stages[0].source_weights)[18:].sum() == 0


def test_early_layers_stay_as_they_were(examples: Examples) -> None:
    from ml.network import backbone_of, build_network, thaw

    network = build_network(3, 32, None)
    thaw(network)
    trained = {layer.name: layer.trainable for layer in backbone_of(network).layers}
    assert not trained["Conv1"]
    assert trained["block_3_expand"]
    assert trained["Conv_1"]


def test_a_stain_is_lent_by_a_source_that_is_not_drawn_from(examples: Examples) -> None:
    from ml.train import ViewBatches

    lenders = ViewBatches(examples, RECIPE, RECIPE.stages[0], first=0, last=1).lenders
    lent = {id(pixels) for pixels in lenders}
    of = [source for scene, source in zip(examples.scenes, examples.sources, strict=True) if id(scene.pixels) in lent]
    assert set(of) == {"pbc", "raabin"}


def test_the_folded_backbone_answers_and_learns_as_the_backbone_does() -> None:
    import keras
    import tensorflow as tf

    from ml.folded_backbone import folded_forward
    from ml.network import backbone_of, build_network, thaw

    network = build_network(3, 64, None)
    thaw(network)
    backbone = backbone_of(network)
    random = np.random.default_rng(3)
    for layer in backbone.layers:  # statistics as of a trained network: the fresh ones would hide a mistake
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    random.uniform(0.5, 1.5, gamma.shape),
                    random.normal(0, 0.3, beta.shape),
                    random.normal(0, 0.3, mean.shape),
                    random.uniform(0.5, 1.5, variance.shape),
                ]
            )
    pixels = tf.constant(random.uniform(-1, 1, (2, 64, 64, 3)), tf.float32)
    answers, gradients = [], []
    plain = partial(backbone, training=False)
    for forward in (plain, folded_forward(backbone)):
        with tf.GradientTape() as tape:
            maps = forward(pixels)
            loss = tf.reduce_mean(tf.square(maps))
        answers.append(maps.numpy())
        gradients.append([g.numpy() for g in tape.gradient(loss, backbone.trainable_variables)])
    assert answers[0].std() > 0.01
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-3)
    for folded, whole in zip(gradients[1], gradients[0], strict=True):
        assert np.linalg.norm(folded - whole) <= 0.01 * np.linalg.norm(whole) + 1e-6


def test_an_interrupted_run_goes_on_where_it_saved_itself(
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step_by_step: Callable[[], AbstractContextManager[None]],
) -> None:
    from ml import train

    kept = train.Checkpoint.save

    def save_and_stop(checkpoint: train.Checkpoint, state: train.State) -> None:
        kept(checkpoint, state)
        if state.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.Checkpoint, "save", save_and_stop)
    with step_by_step(), pytest.raises(KeyboardInterrupt):
        train.train_network(examples, examples, 3, RECIPE, None, tmp_path)
    monkeypatch.setattr(train.Checkpoint, "save", kept)
    saved = train.Checkpoint(tmp_path / train.CHECKPOINT, RECIPE, examples, None).load()
    assert saved is not None
    assert saved.step == 3
    assert saved.seconds > 0
    # Ended between the log and the save that belongs to it: the line is written again, and not twice.
    train.TrainingLog(tmp_path / train.LOG, ["pbc", "raabin"], 3).write(4, 9.0, 0.5, 0.5, [0.5, 0.5], 0.1)

    monkeypatch.setattr(train, "warm_head", None)  # would fail: what was learnt is not learnt again
    network, seconds = train.train_network(examples, examples, 3, RECIPE, None, tmp_path)
    assert seconds > saved.seconds
    assert network.input_shape == (None, INPUT_SIZE, INPUT_SIZE, 3)
    log = (tmp_path / train.LOG).read_text().splitlines()
    assert log[0] == "step,seconds,loss,validation_accuracy,pbc,raabin,heat_map_peak"
    lines = [line.split(",") for line in log[1:]]
    assert [line[0] for line in lines] == ["2", "3", "4"]
    assert [int(line[1]) for line in lines] == sorted(int(line[1]) for line in lines)
    assert int(lines[-1][1]) == round(seconds)
    assert all(np.isfinite(weight).all() for weight in network.get_weights())
    assert any(not np.array_equal(a, b) for a, b in zip(saved.weights, network.get_weights(), strict=True))

    # A finished run is not trained a second time.
    again, seconds_again = train.train_network(examples, examples, 3, RECIPE, None, tmp_path)
    assert seconds_again == seconds
    for first, second in zip(network.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(first, second)


def test_the_checkpoint_of_another_run_is_refused(examples: Examples, tmp_path: Path) -> None:
    from ml.train import CHECKPOINT, Checkpoint, State

    Checkpoint(tmp_path / CHECKPOINT, RECIPE, examples, None).save(State(2, 1.0, [], []))
    (tmp_path / "other.h5").write_bytes(b"other weights")
    for recipe, weights in ((replace(RECIPE, seed=8), None), (RECIPE, tmp_path / "other.h5")):
        with pytest.raises(UnusableData, match="another recipe"):
            Checkpoint(tmp_path / CHECKPOINT, recipe, examples, weights).load()


def test_dropped_cells_keep_the_mean_of_the_others() -> None:
    import tensorflow as tf

    from ml.train import drop_cells

    tf.random.set_seed(1)
    maps = np.random.default_rng(0).random((6, 5, 5, 7)).astype(np.float32)
    dropped = drop_cells(tf.constant(maps), 0.4).numpy()
    for before, after in zip(maps, dropped, strict=True):
        kept = after.any(axis=2)
        assert 0 < kept.sum() < 25
        np.testing.assert_allclose(after.mean(axis=(0, 1)), before[kept].mean(axis=0), rtol=1e-5)
    assert np.array_equal(drop_cells(tf.constant(maps), 0.0).numpy(), maps)


def test_a_recipe_is_shortened_in_all_its_stages() -> None:
    recipe = Recipe(stages=(Stage(112, 300, ()), Stage(150, 100, ())))
    assert [stage.steps for stage in recipe.with_steps(40).stages] == [30, 10]
    assert [stage.steps for stage in recipe.with_steps(1).stages] == [1, 1]
