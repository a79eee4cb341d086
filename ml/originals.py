"""Which photograph is an augmented Kaggle file made from?

The Kaggle "blood-cells" files are turned, mirrored, shifted and sheared copies of BCCD photographs, and their names
do not tell of which. A file belongs to the photograph with which most ORB key points agree under one affine map
(Rublee et al.
2011, ICCV; RANSAC: Fischler and Bolles 1981).
"""

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.images import Pixels, decode, shrink
from ml.preprocess import fill_black_corners
from ml.progress import Progress

_KEY_POINTS = 250
_LEAST_AGREEING = 14  # key points that must agree under one map
_LEAST_LEAD = 1.6  # and so many times more than with any other photograph
_SHORTLIST = 5
_CLOSE = 44  # Hamming distance of key points that may be the same

Features = tuple[NDArray[np.float32], NDArray[np.uint8]]


def test_photographs(kaggle: Path) -> dict[str, str]:
    """Return `CLASS/file` -> photograph for the Kaggle TEST folder, as its `test_originals.csv` has it."""
    table = kaggle / "test_originals.csv"
    with table.open(newline="", encoding="utf-8") as file:
        return {f"{row['class']}/{row['file']}": row["original"] for row in csv.DictReader(file) if row["original"]}


def photographs_by_class(bccd: Path) -> dict[str, list[Path]]:
    """Return the BCCD photographs of each class of `labels.csv`, classes in lower case; one with two cells is in
    both.
    """
    by_class: dict[str, list[Path]] = {}
    with (bccd / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            photograph = bccd / "JPEGImages" / f"BloodImage_{int(row['Image']):05d}.jpg"
            if not photograph.exists():
                continue
            for name in filter(None, (part.strip().lower() for part in row["Category"].split(","))):
                by_class.setdefault(name, []).append(photograph)
    return by_class


def photograph_of_files(files: Sequence[Path], photographs: Sequence[Path]) -> dict[Path, str | None]:
    """Return the name of the photograph that each file was made from, or None where it is uncertain."""
    with ThreadPoolExecutor() as pool:
        known = list(pool.map(lambda path: _features(_small(path)), photographs))
        known += list(pool.map(lambda path: _features(np.ascontiguousarray(_small(path)[:, ::-1])), photographs))
        names = [path.stem for path in photographs] * 2
        signs = _signs(np.concatenate([codes for _, codes in known]))
        ends = np.cumsum([0] + [len(codes) for _, codes in known])[:-1]
        described = pool.map(lambda path: _features(_small(path)), files)
        progress = Progress("match", len(files))
        return {
            file: _best(features, known, names, signs, ends)
            for file, features in zip(files, progress.each(described), strict=True)
        }


def _small(path: Path) -> Pixels:
    return fill_black_corners(shrink(decode(path.read_bytes()), 320))


def _features(image: Pixels) -> Features:
    # A small FAST threshold: blurred red cells have weak corners.
    orb = cv2.ORB.create(nfeatures=_KEY_POINTS, fastThreshold=8)
    points, codes = orb.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    places = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
    return places, codes if codes is not None else np.zeros((0, 32), np.uint8)


def _pairs(first: Features, second: Features) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if min(len(first[1]), len(second[1])) < 4:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first[1], second[1])
    close = [match for match in matches if match.distance < 64]
    return first[0][[m.queryIdx for m in close]], second[0][[m.trainIdx for m in close]]


def _agreeing(first: Features, second: Features) -> int:
    here, there = _pairs(first, second)
    if len(here) < 6:
        return 0
    cv2.setRNGSeed(7)
    _, inliers = cv2.estimateAffine2D(here, there, ransacReprojThreshold=3.0, maxIters=1000)
    return int(inliers.sum()) if inliers is not None else 0


def _signs(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Binary codes (n, 32) as +-1 (n, 256): their products are 256 - 2 x Hamming distance."""
    return np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1


def _best(
    file: Features, known: Sequence[Features], names: Sequence[str], signs: NDArray[np.float32], ends: NDArray[np.int64]
) -> str | None:
    if len(file[1]) < _LEAST_AGREEING:
        return None
    nearest = np.maximum.reduceat(_signs(file[1]) @ signs.T, ends, axis=1)
    counts = (nearest >= 256 - 2 * _CLOSE).sum(axis=0)
    votes: dict[str, int] = {}
    for index in np.argsort(-counts, kind="stable")[:_SHORTLIST]:
        votes[names[index]] = max(votes.get(names[index], 0), _agreeing(file, known[index]))
    ranked = sorted(votes.items(), key=lambda vote: -vote[1])
    runner_up = ranked[1][1] if len(ranked) > 1 else 0
    return ranked[0][0] if ranked[0][1] >= max(_LEAST_AGREEING, _LEAST_LEAD * runner_up) else None
