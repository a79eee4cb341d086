"""Grad-CAM (Selvaraju et al. 2017, ICCV) in closed form.

For feature map -> mean -> Dense(64, relu) -> Dense(classes), the gradient of a logit by the pooled features is
`W1 (relu'(z1) * W2[:, class])`, so no backward pass is needed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SINK_SHARE = 0.6  # of the evidence, in one of the map's 25 cells

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """The dense layers behind the pooled features: `w1` (1280, 64), `b1` (64,), `w2` (64, classes), `b2` (classes,)."""

    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats

    def logits(self, pooled: Floats) -> Floats:
        """Return the logits, float32 (n, classes), of pooled features (n, 1280)."""
        return np.asarray(np.maximum(pooled @ self.w1 + self.b1, 0) @ self.w2 + self.b2, np.float32)


def grad_cam(feature_map: Floats, head: Head, label: int) -> Floats:
    """Return the raw Grad-CAM, float32 (h, w) >= 0, of class index `label` on a feature map (h, w, 1280)."""
    height, width, _ = feature_map.shape
    is_active = (feature_map.mean(axis=(0, 1)) @ head.w1 + head.b1) > 0
    alpha = head.w1 @ (is_active * head.w2[:, label]) / np.float32(height * width)
    return np.asarray(np.maximum(feature_map @ alpha, 0), np.float32)


def heat_map(feature_map: Floats, head: Head, label: int) -> Floats | None:
    """Return the Grad-CAM as float32 (h, w) in 0..1 with its peak at 1, or None where it would explain nothing.

    It has the feature map's few cells: whoever draws it makes it smooth and large. It explains nothing where nothing
    speaks for the class, and where one cell holds nearly all of the evidence: a network that gathers what it saw in one
    cell, whatever the picture (a "sink"; Darcet et al. 2024, ICLR), would point to the same place every time.
    """
    raw = grad_cam(feature_map, head, label)
    peak, total = float(raw.max()), float(raw.sum())
    if peak <= 0 or peak > _SINK_SHARE * total:
        return None
    return np.asarray(raw / peak, np.float32)
