"""From a trained Keras network to the files that serve it."""

import contextlib
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ml.model_card import HEAD_FILE, MODEL_FILE
from ml.network import head_weights, serving_network


def export_network(network: keras.Model, bundle: Path) -> None:
    """Write the LiteRT model (float32; outputs: feature map, logits and texture) and the head's weights to `bundle`."""
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / MODEL_FILE).write_bytes(to_litert(network))
    np.savez(bundle / HEAD_FILE, allow_pickle=False, **head_weights(network))


def to_litert(network: keras.Model) -> bytes:
    """Convert a two-output network to LiteRT, float32. Its batch size is set by resizing the input."""
    converter = tf.lite.TFLiteConverter.from_keras_model(serving_network(network))
    # The converter chats on stdout, which belongs to the JSON of the command line.
    with contextlib.redirect_stdout(sys.stderr):
        return bytes(converter.convert())
