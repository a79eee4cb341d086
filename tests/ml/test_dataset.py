import gzip
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml.acquire import unpack_kaggle
from ml.dataset import LabelledCell, load_scenes, read_class_folders, read_manifest, write_manifest
from ml.errors import UnusableData
from ml.evaluate import label_for_model

from .smears import draw_cell, encoded


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "cell.png").write_bytes(encoded(draw_cell()))
    return folder


def test_class_folders_are_read_in_any_spelling(tmp_path: Path) -> None:
    fill(tmp_path, "IG", "Lymphocytes", "__MACOSX", ".cache")
    (tmp_path / "IG" / "notes.txt").write_text("not a picture")
    assert [label for _, label in read_class_folders(tmp_path)] == ["immature_granulocyte", "lymphocyte"]


def test_an_unknown_class_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="'dragon' is not a known cell type"):
        read_class_folders(fill(tmp_path, "monocyte", "dragon"))


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "monocyte")
    (tmp_path / "platelet").mkdir()
    with pytest.raises(UnusableData, match="'platelet' has no pictures"):
        read_class_folders(tmp_path)


def test_a_folder_without_classes_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="has no class folders"):
        read_class_folders(tmp_path)
    with pytest.raises(UnusableData, match="can't be read"):
        read_class_folders(tmp_path / "nothing")


@pytest.mark.parametrize("closed", ["cells", "monocyte"])
def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    fill(tmp_path / "cells", "monocyte")
    iterate = Path.iterdir

    def iterate_open(folder: Path) -> Iterator[Path]:
        # Not by file modes: root may read everything.
        if folder.name == closed:
            raise PermissionError
        return iter(list(iterate(folder)))

    monkeypatch.setattr(Path, "iterdir", iterate_open)
    with pytest.raises(UnusableData, match="can't be read"):
        read_class_folders(tmp_path / "cells")


def test_an_unreadable_picture_is_left_out_of_training(tmp_path: Path) -> None:
    fill(tmp_path, "monocyte")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    scenes = load_scenes([tmp_path / "bad.png", tmp_path / "monocyte" / "cell.png"])
    assert scenes[0] is None
    assert scenes[1] is not None


def test_a_finer_type_counts_as_the_coarser_one_that_the_model_knows() -> None:
    known = ("neutrophil", "immature_granulocyte")
    assert label_for_model("band_neutrophil", known) == "neutrophil"
    assert label_for_model("myelocyte", known) == "immature_granulocyte"
    with pytest.raises(UnusableData, match="does not know"):
        label_for_model("platelet", known)


def test_the_kaggle_zip_is_organised_however_it_is_nested(tmp_path: Path) -> None:
    archive = tmp_path / "Blood Cell Images.zip"
    with zipfile.ZipFile(archive, "w") as writing:
        for top in ("dataset2-master/dataset2-master", "outer/dataset2-master"):
            writing.writestr(f"{top}/images/TRAIN/MONOCYTE/{len(top)}.jpeg", b"x")
        writing.writestr("dataset2-master/dataset2-master/images/TEST_SIMPLE/NEUTROPHIL/b.jpeg", b"x")
        writing.writestr("dataset2-master/../../../TRAIN/evil/../../escape.jpeg", b"x")
        writing.writestr("dataset-master/JPEGImages/c.jpg", b"x")
    counts = unpack_kaggle(archive, tmp_path / "out")
    assert counts["TEST_SIMPLE"] == 1
    root = (tmp_path / "out" / "kaggle-blood-cells").resolve()
    assert len(list((root / "TRAIN" / "MONOCYTE").iterdir())) == 2
    assert all(path.resolve().is_relative_to(root) for path in (tmp_path / "out").rglob("*.jpeg"))
    assert not list(tmp_path.glob("*.jpeg"))


def test_what_is_no_kaggle_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="was not found"):
        unpack_kaggle(tmp_path / "none.zip", tmp_path)
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(UnusableData, match="could not be unpacked"):
        unpack_kaggle(tmp_path / "text.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as writing:
        writing.writestr("holiday/photo.jpg", b"x")
    with pytest.raises(UnusableData, match="does not hold"):
        unpack_kaggle(tmp_path / "other.zip", tmp_path)


def test_a_bundle_remembers_which_picture_was_in_which_part(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", "monocyte", "platelet")
    cells = [
        LabelledCell(data / "monocyte" / "cell.png", "monocyte", "pbc", "pbc:a", "train"),
        LabelledCell(data / "platelet" / "cell.png", "platelet", "pbc", "pbc:b", "validation"),
    ]
    write_manifest(cells, data, tmp_path / "manifest.csv")
    packed = tmp_path / "manifest.csv.gz"
    packed.write_bytes(gzip.compress((tmp_path / "manifest.csv").read_bytes()))
    assert read_manifest(packed, data) == cells
    cells[1].path.unlink()
    with pytest.raises(UnusableData, match="lacks pictures that this model was trained on"):
        read_manifest(packed, data)
