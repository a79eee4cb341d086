"""The network: MobileNetV2 (Sandler et al. 2018), global average, Dense 64, Dense classes. Imports Keras: training
only.
"""

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

HIDDEN = 64
# Where stain, focus and scale can still be seen; the last layers have learnt to look past them.
_TEXTURE_LAYER = "block_13_expand_relu"
_TUNED_FROM = "block_3_expand"


def build_network(classes: int, size: int, weights: Path | None) -> keras.Model:
    """Return a model from float32 (n, size, size, 3) in [-1, 1] to `[feature map (n, h, w, 1280), logits (n,
    classes)]`.

    `weights` is an ImageNet file without the top; None draws the weights at random. Batch statistics are frozen.
    """
    backbone = keras.applications.MobileNetV2(input_shape=(size, size, 3), alpha=1.0, include_top=False, weights=None)
    if weights is not None:
        backbone.load_weights(str(weights))
    return attach_head(backbone, classes, size)


def attach_head(backbone: keras.Model, classes: int, size: int) -> keras.Model:
    """Return the two-output model of `build_network` on a given backbone."""
    pixels = keras.Input((size, size, 3), name="pixels")
    feature_map = backbone(pixels, training=False)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(feature_map)
    hidden = keras.layers.Dense(HIDDEN, activation="relu", name="hidden")(keras.layers.Dropout(0.2)(pooled))
    logits = keras.layers.Dense(classes, name="logits")(keras.layers.Dropout(0.3)(hidden))
    return keras.Model(pixels, [feature_map, logits], name="hematovision")


def serving_network(network: keras.Model) -> keras.Model:
    """Return a model from one picture (1, size, size, 3) to `[feature map, logits, texture (1, 1152)]`.

    The texture is the mean and the standard deviation of each channel of an earlier layer: what the gate judges by.
    """
    size = network.input_shape[1]
    # One picture fixed: with an open batch size the converter computes shapes at run time, which costs speed.
    pixels = keras.Input(batch_shape=(1, size, size, 3), name="pixels")
    backbone = backbone_of(network)
    earlier = keras.Model(backbone.inputs, [backbone.get_layer(_TEXTURE_LAYER).output, *backbone.outputs])
    channels, feature_map = earlier(pixels, training=False)
    mean = keras.ops.mean(channels, axis=(1, 2))
    variance = keras.ops.mean(keras.ops.square(channels), axis=(1, 2)) - keras.ops.square(mean)
    deviation = keras.ops.sqrt(keras.ops.relu(variance))
    hidden = network.get_layer("hidden")(network.get_layer("pooled")(feature_map))
    texture = keras.ops.concatenate([mean, deviation], axis=1)
    return keras.Model(pixels, [feature_map, network.get_layer("logits")(hidden), texture])


def resized_network(network: keras.Model, size: int) -> keras.Model:
    """Return the network for pictures of another size, with the same weights; itself if it has that size."""
    if network.input_shape[1] == size:
        return network
    other = build_network(network.output_shape[1][-1], size, None)
    other.set_weights(network.get_weights())
    return other


def backbone_of(network: keras.Model) -> keras.Model:
    """Return the MobileNetV2 inside a network."""
    return next(layer for layer in network.layers if isinstance(layer, keras.Model))


def thaw(network: keras.Model, first: str = _TUNED_FROM) -> None:
    """Make the backbone trainable from the layer `first` on, and freeze what comes before."""
    is_tuned = False
    for layer in backbone_of(network).layers:
        is_tuned = is_tuned or layer.name == first
        layer.trainable = is_tuned


def head_weights(network: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Return the head as arrays: `w1` (1280, 64), `b1` (64,), `w2` (64, classes), `b2` (classes,)."""
    w1, b1 = network.get_layer("hidden").get_weights()
    w2, b2 = network.get_layer("logits").get_weights()
    return {"w1": w1, "b1": b1, "w2": w2, "b2": b2}
