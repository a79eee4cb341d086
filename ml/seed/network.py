"""The seed's network: MobileNetV2 (Sandler et al. 2018) frozen, global average, Dense 64, Dropout 0.3, softmax. Imports
Keras: training only.
"""

import contextlib
import logging
import socket
import sys

import keras
import numpy as np
from numpy.typing import NDArray

from ml.errors import UnusableData
from ml.network import backbone_of
from ml.progress import Progress
from ml.seed.recipe import Weights

_BLOCK = 64
_THAWED_FROM = "block_14_expand"
_NO_ANSWER_SECONDS = 30


def build_seed_network(classes: int, size: int, weights: Weights) -> keras.Model:
    """Return the uncompiled model from float32 (n, size, size, 3) in [0, 1] to probabilities (n, classes).

    The backbone is frozen. Raises UnusableData for weights that don't fit or can't be downloaded.
    """
    # Keras would advise another file format, and fewer models, on stderr.
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    backbone = _backbone(size, weights)
    backbone.trainable = False
    return keras.Sequential(
        [
            keras.Input((size, size, 3), name="pixels"),
            backbone,
            keras.layers.GlobalAveragePooling2D(name="pooled"),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.Dense(classes, activation="softmax", name="probabilities"),
        ],
        name="seed",
    )


def _backbone(size: int, weights: Weights) -> keras.Model:
    download = weights == "imagenet"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NO_ANSWER_SECONDS)
    try:
        # Keras shows its download on stdout, which holds JSON only.
        with contextlib.redirect_stdout(sys.stderr):
            backbone = keras.applications.MobileNetV2(
                input_shape=(size, size, 3), alpha=1.0, include_top=False, weights="imagenet" if download else None
            )
            if weights is not None and not isinstance(weights, str):
                backbone.load_weights(str(weights))
    # Keras raises plain Exception for a failed download, and many kinds of error for a file that doesn't fit.
    except Exception as error:
        if download:
            raise UnusableData(
                "The ImageNet weights could not be downloaded; give a file of them with --weights."
            ) from error
        raise UnusableData(f"The weights file does not fit MobileNetV2: {getattr(weights, 'name', '')!r}.") from error
    finally:
        socket.setdefaulttimeout(before)
    return backbone


def seed_input(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale uint8 pixels to what the seed's network takes: float32 in [0, 1]."""
    return frames.astype(np.float32) / np.float32(255)


def head_on_features(network: keras.Model) -> keras.Model:
    """Return the very head of a network, its layers and weights shared, as a model from pooled features (n, 1280)."""
    hidden = network.get_layer("hidden")
    features = keras.Input((hidden.kernel.shape[0],), name="features")
    dropped = network.get_layer("dropout")(hidden(features))
    return keras.Model(features, network.get_layer("probabilities")(dropped), name="head")


def pooled_features(network: keras.Model, frames: NDArray[np.uint8], what: str = "features") -> NDArray[np.float32]:
    """Return what the frozen part makes of frames, float32 (n, 1280)."""
    until_pooled = keras.Sequential([backbone_of(network), network.get_layer("pooled")])
    return in_blocks(until_pooled, frames, what)


def probabilities(network: keras.Model, frames: NDArray[np.uint8], what: str = "test") -> NDArray[np.float32]:
    """Return the probabilities of frames, float32 (n, classes)."""
    return in_blocks(network, frames, what)


def in_blocks(network: keras.Model, frames: NDArray[np.uint8], what: str) -> NDArray[np.float32]:
    """Return what a model makes of uint8 frames, a block at a time."""
    progress = Progress(what, len(frames))
    parts = []
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        # Blocks of one size: Keras would trace the model anew for a smaller last one.
        full = np.concatenate([block, np.zeros((_BLOCK - len(block), *block.shape[1:]), np.uint8)])
        parts.append(np.asarray(network.predict_on_batch(seed_input(full)), np.float32)[: len(block)])
        progress.advance(len(block))
    return np.concatenate(parts)


def thaw_last_blocks(network: keras.Model) -> None:
    """Make the backbone trainable from block 14 on; its batch statistics stay frozen."""
    backbone = backbone_of(network)
    backbone.trainable = True
    is_thawed = False
    for layer in backbone.layers:
        is_thawed = is_thawed or layer.name == _THAWED_FROM
        layer.trainable = is_thawed and not isinstance(layer, keras.layers.BatchNormalization)
