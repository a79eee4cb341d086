import csv
import gzip
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from ml.dataset import SHARES, month_of, slide_of
from ml.images import decode
from ml.originals import photograph_of_files, photographs_by_class
from ml.originals import test_photographs as photographs_for_test
from ml.splits import deal, fingerprint, join_groups, near_duplicates

from .smears import draw_cell


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> list[dict[str, str]]:
    with gzip.open(bundle / "manifest.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_group_is_never_divided() -> None:
    random = np.random.default_rng(0)
    groups = [f"slide {i}" for i in random.integers(0, 40, 1000)]
    labels = [str(i) for i in random.integers(0, 3, 1000)]
    parts = deal(groups, labels, {"train": 0.7, "validation": 0.15, "test": 0.15})
    part_of = dict(zip(groups, parts, strict=True))
    assert all(part_of[group] == part for group, part in zip(groups, parts, strict=True))
    for label in set(labels):
        own = Counter(part for part, name in zip(parts, labels, strict=True) if name == label)
        assert 0.55 < own["train"] / own.total() < 0.85
        assert own["test"] > 0


def test_the_same_data_gives_the_same_split() -> None:
    groups = [f"g{i % 50}" for i in range(200)]
    labels = ["a"] * 200
    shares = {"train": 0.8, "test": 0.2}
    assert deal(groups, labels, shares) == deal(groups, labels, shares)
    assert deal(groups, labels, shares) != deal(groups, labels, shares, seed=1)


def test_pairs_join_their_groups() -> None:
    assert join_groups(["a", "b", "c", "d"], [(0, 1), (1, 2)]) == ["a", "a", "a", "d"]


def test_a_recompressed_copy_is_a_near_duplicate_and_another_cell_is_not() -> None:
    cell, other = draw_cell(seed=1), draw_cell(seed=2)
    copy = cv2.resize(cell, (180, 180), interpolation=cv2.INTER_AREA)
    prints = np.stack([fingerprint(picture) for picture in (cell, other, copy)])
    assert near_duplicates(prints) == [(0, 2)]


@pytest.mark.parametrize(
    ("name", "slide"),
    [
        ("95-8-10-1_12_3.jpg", "95-8-10-1"),
        ("95-5-4-1_1008_1.jpg", "95-5-4-1"),
        ("20190526_162951_0.jpg", "20190526"),
    ],
)
def test_slide_is_read_from_the_name(name: str, slide: str) -> None:
    assert slide_of(Path(name)) == slide


@pytest.mark.parametrize(
    ("slide", "month"), [("95-8-10-1", "95-8"), ("95-10-2-1", "95-10"), ("20190526", "dated"), ("20190604", "dated")]
)
def test_a_slide_is_dealt_within_its_month(slide: str, month: str) -> None:
    assert month_of(slide) == month


def test_in_the_manifest_no_group_and_no_content_crosses(manifest: list[dict[str, str]]) -> None:
    for key in ("group", "sha256"):
        parts = defaultdict(set)
        for row in manifest:
            parts[row[key]].add(row["split"])
        assert all(len(found) == 1 for found in parts.values())
    assert len({row["path"] for row in manifest}) == len(manifest)


def test_in_the_manifest_no_slide_crosses(manifest: list[dict[str, str]]) -> None:
    parts = defaultdict(set)
    for row in manifest:
        if row["source"] == "raabin":
            parts[slide_of(Path(row["path"]))].add(row["split"])
    assert len(parts) > 30
    assert all(len(found) == 1 for found in parts.values())


def test_training_sees_slides_of_every_month(manifest: list[dict[str, str]]) -> None:
    parts = defaultdict(set)
    for row in manifest:
        if row["source"] == "raabin":
            parts[month_of(slide_of(Path(row["path"])))].add(row["split"])
    assert len(parts) > 3
    assert all("train" in found for found in parts.values()), parts


def test_the_manifest_holds_no_test_picture_and_no_test_photograph(manifest: list[dict[str, str]], data: Path) -> None:
    folders = {tuple(Path(row["path"]).parts[:-2]) for row in manifest}
    assert folders == {("pbc",), ("raabin",), ("kaggle-blood-cells", "TRAIN")}
    groups = {row["group"] for row in manifest if row["source"] == "kaggle"}
    assert not groups & {f"kaggle:{name}" for name in photographs_for_test(data / "kaggle-blood-cells").values()}


def test_the_manifest_has_every_class_of_every_source_in_training_and_validation(
    manifest: list[dict[str, str]],
) -> None:
    counts = Counter((row["source"], row["label"], row["split"]) for row in manifest)
    for source, label in {(source, label) for source, label, _ in counts}:
        for part, share in SHARES[source].items():
            assert (counts[source, label, part] > 0) == (share > 0), (source, label, part)


def difference_hash(picture: np.ndarray) -> int:
    grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (17, 16), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes())


def test_by_another_measure_too_no_near_duplicate_crosses(manifest: list[dict[str, str]], data: Path) -> None:
    """Difference hashes of the smallest class of PBC: a measure that the split was not made with."""
    rows = [row for row in manifest if row["source"] == "pbc" and row["label"] == "basophil"]
    hashes = [(difference_hash(decode((data / row["path"]).read_bytes())), row) for row in rows]
    crossing = [
        (first["path"], second["path"])
        for (a, first), (b, second) in combinations(hashes, 2)
        if (a ^ b).bit_count() <= 10 and first["split"] != second["split"]
    ]
    assert crossing == []


def test_photographs_of_kaggle_files_are_found(data: Path) -> None:
    kaggle = data / "kaggle-blood-cells"
    known = photographs_for_test(kaggle)
    files = sorted((kaggle / "TEST" / "MONOCYTE").glob("*"))[::62]
    found = photograph_of_files(files, photographs_by_class(data / "bccd")["monocyte"])
    truth = {file: known.get(f"{file.parent.name}/{file.name}") for file in files}
    certain = [file for file in files if found[file] and truth[file]]
    assert len(certain) >= 0.8 * len(files)
    assert all(found[file] == truth[file] for file in certain)
