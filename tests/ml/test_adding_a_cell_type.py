"""docs/model/adding-a-cell-type.md holds: a folder named after the type is all that a new type needs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ml import dataset
from ml.conformal import threshold_rank
from ml.dataset import PARTS, SHARES, product_cells, write_manifest
from ml.errors import UnusableData
from ml.labels import CELL_TYPES
from ml.product import labels_of

from .smears import encoded


def fill(folder: Path, names: list[str], seed: int) -> None:
    """Pictures of noise: no two are alike, so none is joined with another as a duplicate."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for name in names:
        (folder / name).write_bytes(encoded(random.integers(0, 256, (32, 32, 3)).astype(np.uint8)))


@pytest.fixture
def small_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three sources in the small, with each Kaggle file's photograph already known."""
    data = tmp_path / "data"
    fill(data / "pbc" / "neutrophil", [f"SNE_{i}.png" for i in range(12)], 1)
    fill(data / "raabin" / "monocyte", [f"slide{i // 3}_{i}_1.png" for i in range(12)], 2)
    kaggle = data / "kaggle-blood-cells"
    names = [f"_{i}_1.png" for i in range(6)]
    fill(kaggle / "TRAIN" / "EOSINOPHIL", names, 3)
    (kaggle / "test_originals.csv").write_text("class,file,original\n")
    cache = tmp_path / "cache"
    cache.mkdir()
    known = {f"EOSINOPHIL/{name}": f"photograph {number // 2}" for number, name in enumerate(names)}
    (cache / "kaggle-train-originals.json").write_text(json.dumps(known))
    monkeypatch.setattr(dataset, "cache_folder", lambda: cache)
    return data


def test_a_folder_named_after_a_type_makes_it_a_class(small_data: Path) -> None:
    assert labels_of(product_cells(small_data)) == ("neutrophil", "eosinophil", "monocyte")
    fill(small_data / "pbc" / "Smudge cells", [f"smudge{i}.png" for i in range(30)], 4)

    cells = product_cells(small_data)
    assert labels_of(cells) == ("neutrophil", "eosinophil", "monocyte", "smudge_cell")
    assert {cell.part for cell in cells if cell.label == "smudge_cell"} == set(PARTS)


def test_own_slides_stay_whole(small_data: Path) -> None:
    fill(small_data / "raabin" / "smudge", [f"ours-{i // 5}_{i}_1.png" for i in range(40)], 5)

    own = [cell for cell in product_cells(small_data) if cell.label == "smudge_cell"]
    parts = {group: {cell.part for cell in own if cell.group == group} for group in {cell.group for cell in own}}
    assert len(parts) == 8
    assert all(len(found) == 1 for found in parts.values())


def test_the_manifest_lists_the_new_type(small_data: Path, tmp_path: Path) -> None:
    fill(small_data / "pbc" / "smudge_cell", ["a.png"], 6)
    write_manifest(product_cells(small_data), small_data, tmp_path / "manifest.csv")

    with (tmp_path / "manifest.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file) if row["label"] == "smudge_cell"] == [
            "pbc/smudge_cell/a.png"
        ]


def test_a_type_outside_the_vocabulary_is_refused_with_the_types_that_are_known(small_data: Path) -> None:
    fill(small_data / "pbc" / "blast", ["a.png"], 7)
    with pytest.raises(UnusableData, match="'blast' is not a known cell type") as refusal:
        product_cells(small_data)
    assert all(label in str(refusal.value) for label in CELL_TYPES)


def test_the_numbers_of_pictures_that_the_walk_names_are_those_of_the_code() -> None:
    assert (SHARES["pbc"]["validation"], SHARES["raabin"]["validation"]) == (0.12, 0.15)
    assert (threshold_rank(44), threshold_rank(45)) == (0, 1)
