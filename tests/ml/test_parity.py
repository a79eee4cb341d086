"""What is served is what was trained: LiteRT against Keras, and the closed-form heat map against automatic gradients.

The network is a fresh one with shaken weights, exported by the product's own export function: the shipped bundle holds
no Keras weights (a second copy would double its size). That the shipped head and the shipped network belong together is
tested on the bundle itself.
"""

import numpy as np
import pytest

from ml.heat_map import grad_cam, heat_map
from ml.predictor import LiteRTPredictor
from ml.preprocess import network_input

from .small_network import CLASSES, SmallNetwork, make_small_network
from .smears import draw_cell, encoded


@pytest.fixture(scope="module")
def small() -> SmallNetwork:
    return make_small_network()


def test_litert_agrees_with_keras(small: SmallNetwork) -> None:
    maps, logits, texture = small.runtime.run(small.pictures)
    keras_maps, keras_logits = small.keras(network_input(small.pictures), training=False)
    assert logits.shape == (9, CLASSES)
    assert logits.std() > 0.01
    assert np.abs(maps - keras_maps.numpy()).max() < 1e-3
    assert np.abs(logits - keras_logits.numpy()).max() < 1e-3
    channels = earlier_layer(small, "block_13_expand_relu")
    assert texture.shape == (9, 2 * channels.shape[-1])
    expected = np.concatenate([channels.mean(axis=(1, 2)), channels.std(axis=(1, 2))], axis=1)
    assert expected.std() > 0.01
    assert np.abs(texture - expected).max() < 1e-3


def earlier_layer(small: SmallNetwork, name: str) -> np.ndarray:
    """What a layer of the backbone makes of the pictures, by Keras: (n, h, w, channels)."""
    import keras

    backbone = small.keras.layers[1]
    layer = keras.Model(backbone.inputs, backbone.get_layer(name).output)
    return np.asarray(layer(network_input(small.pictures), training=False))


def test_export_prints_nothing_where_the_json_goes(small: SmallNetwork) -> None:
    assert small.printed == ""


def test_closed_form_heat_map_agrees_with_gradient_tape(small: SmallNetwork) -> None:
    import tensorflow as tf

    maps = small.runtime.run(small.pictures)[0]
    hidden, logits = small.keras.get_layer("hidden"), small.keras.get_layer("logits")
    for label in range(CLASSES):
        feature_maps = tf.constant(maps)
        with tf.GradientTape() as tape:
            tape.watch(feature_maps)
            chosen = logits(hidden(tf.reduce_mean(feature_maps, axis=(1, 2))))[:, label]
        alpha = tf.reduce_mean(tape.gradient(chosen, feature_maps), axis=(1, 2), keepdims=True)
        expected = tf.nn.relu(tf.reduce_sum(feature_maps * alpha, axis=-1)).numpy()
        for feature_map, raw in zip(maps, expected, strict=True):
            assert np.abs(grad_cam(feature_map, small.head, label) - raw).max() < 1e-4


def test_a_heat_map_without_evidence_is_none_and_not_blank(small: SmallNetwork) -> None:
    feature_map = small.runtime.run(small.pictures[:1])[0][0]
    assert heat_map(np.zeros_like(feature_map), small.head, 0) is None


def test_the_shipped_head_belongs_to_the_shipped_network(predictor: LiteRTPredictor) -> None:
    pixels = np.stack([predictor.prepare(encoded(draw_cell(seed=seed))).pixels for seed in range(3)])
    maps, logits, _ = predictor.runtime.run(pixels)
    assert np.abs(predictor.head.logits(maps.mean(axis=(1, 2))) - logits).max() < 1e-3


def test_a_heat_map_that_points_to_one_cell_whatever_the_picture_is_none(small: SmallNetwork) -> None:
    feature_map = np.zeros((5, 5, small.head.w1.shape[0]), np.float32)
    feature_map[1, 3] = 1.0
    spread = np.linspace(0.5, 1.0, 25, dtype=np.float32).reshape(5, 5, 1) * np.ones_like(feature_map)
    label = next(index for index in range(small.head.w2.shape[1]) if grad_cam(spread, small.head, index).max() > 0)

    assert heat_map(spread, small.head, label) is not None
    assert heat_map(feature_map, small.head, label) is None
