"""Grad-CAM (Selvaraju et al. 2017, ICCV) in closed form.

For feature map -> mean -> Dense(64, relu) -> Dense(classes), the gradient of a logit by the pooled features is
`W1 (relu'(z1) * W2[:, class])`, so no backward pass is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SINK_SHARE = 0.6  # of the evidence, in one of the map's 25 cells

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """The dense layers behind the pooled features: `w1` (1280, h), `b1` (h,), `w2` (h, classes), `b2` (classes,); h
    is 64, and more in an adapted bundle.
    """

    w1: Floats
    b1: Floats
    w2: Floats
    b2: Floats

    def logits(self, pooled: Floats) -> Floats:
        """Return the logits, float32 (n, classes), of pooled features (n, 1280)."""
        return np.asarray(np.maximum(pooled @ self.w1 + self.b1, 0) @ self.w2 + self.b2, np.float32)


def grad_cams(feature_maps: Floats, head: Head, labels: Sequence[int]) -> Floats:
    """Return the raw Grad-CAMs, float32 (n, h, w) >= 0, of one class index each on feature maps (n, h, w, 1280)."""
    _, height, width, _ = feature_maps.shape
    is_active = (feature_maps.mean(axis=(1, 2)) @ head.w1 + head.b1) > 0
    alphas = (is_active * head.w2[:, list(labels)].T) @ head.w1.T / np.float32(height * width)
    heat = feature_maps.reshape(len(feature_maps), height * width, -1) @ alphas[..., None]
    return np.asarray(np.maximum(heat, 0).reshape(-1, height, width), np.float32)


def heat_maps(feature_maps: Floats, head: Head, labels: Sequence[int]) -> list[Floats | None]:
    """Return each Grad-CAM as float32 (h, w) in 0..1 with its peak at 1, or None where it would explain nothing.

    It has the feature map's few cells: whoever draws it makes it smooth and large. It explains nothing where nothing
    speaks for the class, and where one cell holds nearly all of the evidence: a network that gathers what it saw in one
    cell, whatever the picture (a "sink"; Darcet et al. 2024, ICLR), would point to the same place every time.
    """
    raw = grad_cams(feature_maps, head, labels)
    peaks, totals = raw.max(axis=(1, 2)), raw.sum(axis=(1, 2))
    explains = (peaks > 0) & (peaks <= _SINK_SHARE * totals)
    return [heat / peak if good else None for heat, peak, good in zip(raw, peaks, explains, strict=True)]


def grad_cam(feature_map: Floats, head: Head, label: int) -> Floats:
    """Return `grad_cams` of one feature map (h, w, 1280): float32 (h, w)."""
    return np.asarray(grad_cams(feature_map[None], head, [label])[0], np.float32)


def heat_map(feature_map: Floats, head: Head, label: int) -> Floats | None:
    """Return `heat_maps` of one feature map (h, w, 1280): float32 (h, w) or None."""
    return heat_maps(feature_map[None], head, [label])[0]
