"""A small untrained network, exported as the product's is: for tests of what training and serving must agree on."""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ml.heat_map import Head
from ml.runtime import Runtime

SIZE = 96
CLASSES = 5


@dataclass(frozen=True)
class SmallNetwork:
    """The Keras network, the same in LiteRT, its head, some pictures (n, 96, 96, 3), and what export printed."""

    keras: Any
    runtime: Runtime
    head: Head
    pictures: np.ndarray
    printed: str


def make_small_network() -> SmallNetwork:
    """Build, shake (so that no layer is at its start values) and export a network; skips without TensorFlow."""
    pytest.importorskip("tensorflow", reason="not run: TensorFlow is not installed")
    from ml.export import to_litert
    from ml.network import build_network, head_weights

    random = np.random.default_rng(0)
    network = build_network(CLASSES, SIZE, None)
    for layer in network.layers[1].layers:
        if "BatchNormalization" in type(layer).__name__:
            layer.set_weights([w + np.abs(random.normal(0, 0.1, w.shape)).astype(w.dtype) for w in layer.get_weights()])
    for name in ("hidden", "logits"):
        kernel, bias = network.get_layer(name).get_weights()
        network.get_layer(name).set_weights([kernel * 3, bias + random.normal(0, 0.1, bias.shape)])
    pictures = random.integers(0, 256, (9, SIZE, SIZE, 3)).astype(np.uint8)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        model = to_litert(network)
    head = Head(**head_weights(network))
    return SmallNetwork(network, Runtime(model), head, pictures, printed.getvalue())
