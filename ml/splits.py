"""Splits that can't leak: what shows the same cell, slide or photograph stays on one side.

Pictures are first joined into groups (slide, photograph, near-duplicate content); whole groups are then dealt to the
parts, so that each class comes close to its wanted share in each.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.images import Pixels

_FINGERPRINT_SIDE = 16
_SAME_CONTENT = 0.995


def fingerprint(image: Pixels) -> NDArray[np.float32]:
    """Return a unit vector, float32 (768,), that hardly changes when a picture is resized or compressed again."""
    small = cv2.resize(image, (_FINGERPRINT_SIDE, _FINGERPRINT_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    centred = (small - small.mean(axis=(0, 1))).ravel()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-6), np.float32)


def near_duplicates(fingerprints: NDArray[np.float32], alike: float = _SAME_CONTENT) -> list[tuple[int, int]]:
    """Return the index pairs (i < j) of pictures whose fingerprints, unit vectors (n, d), have a cosine above
    `alike`.
    """
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(fingerprints), 2048):
        cosines = fingerprints[start : start + 2048] @ fingerprints.T
        for i, j in np.argwhere(cosines > alike):
            if start + i < j:
                pairs.append((int(start + i), int(j)))
    return pairs


def join_groups(groups: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Return the group of each picture after the groups of every pair are made one (the alphabetically first name)."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for first, second in pairs:
        a, b = sorted((root(groups[first]), root(groups[second])))
        parent[b] = a
    return [root(group) for group in groups]


def deal(groups: Sequence[str], labels: Sequence[str], shares: Mapping[str, float], seed: int = 0) -> list[str]:
    """Return the part of each picture. `shares` maps each part to its wanted share of every class (they sum to 1).

    The largest groups are dealt first, each to the part that lacks most of what the group holds; equal ones come in an
    order that depends on `seed` alone, so the same data always gives the same split.
    """
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        members[group][label] += 1
    wanted = {
        part: {label: share * n for label, n in Counter(labels).items()} for part, share in shares.items() if share > 0
    }
    lacking = {part: dict(counts) for part, counts in wanted.items()}

    def turn(group: str) -> tuple[int, str]:
        return -members[group].total(), hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()

    part_of: dict[str, str] = {}
    for group in sorted(members, key=turn):
        held = members[group]

        def need(part: str, held: Counter[str] = held) -> float:
            return sum(n * lacking[part][label] / wanted[part][label] for label, n in held.items())

        chosen = max(lacking, key=lambda part: (need(part), shares[part]))
        part_of[group] = chosen
        for label, n in held.items():
            lacking[chosen][label] -= n
    return [part_of[group] for group in groups]
