import io
import struct
import urllib.error
import zipfile
from pathlib import Path

import pytest

from ml import acquire
from ml.acquire import fetch_bccd, unpack_kaggle
from ml.errors import UnusableData

TOP = "dataset2-master/dataset2-master/images"


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as writing:
        for name, content in members.items():
            writing.writestr(name, content)
    return path


def everything_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_photographs_of_the_kaggle_zip_come_along(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "Blood Cell Images.zip",
        {
            f"{TOP}/TRAIN/MONOCYTE/_0_1.jpeg": b"a",
            "dataset-master/dataset-master/JPEGImages/BloodImage_00001.jpg": b"b",
            "dataset-master/dataset-master/Annotations/BloodImage_00001.xml": b"c",
            "dataset-master/dataset-master/labels.csv": b"d",
            "dataset-master/dataset-master/README.md": b"e",
        },
    )
    counts = unpack_kaggle(archive, tmp_path / "data")
    assert counts == {"TRAIN": 1, "JPEGImages": 1, "Annotations": 1, "labels.csv": 1}
    assert everything_in(tmp_path / "data") == {
        "kaggle-blood-cells/TRAIN/MONOCYTE/_0_1.jpeg",
        "bccd/JPEGImages/BloodImage_00001.jpg",
        "bccd/Annotations/BloodImage_00001.xml",
        "bccd/labels.csv",
    }


def test_nothing_leaves_the_folder_and_nothing_hidden_comes_in(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "a.zip",
        {
            f"{TOP}/TRAIN/MONOCYTE/good.jpeg": b"x",
            f"{TOP}/TRAIN/../../../../../MONOCYTE/up.jpeg": b"x",
            f"/{TOP}/TRAIN/MONOCYTE/root.jpeg": b"x",
            f"{TOP}/TRAIN/MONOCYTE/..\\..\\windows.jpeg": b"x",
            f"{TOP}/TRAIN/../dataset2/TRAIN/../up.jpeg": b"x",
            f"__MACOSX/{TOP}/TRAIN/MONOCYTE/._good.jpeg": b"x",
            f"{TOP}/TRAIN/MONOCYTE/.hidden.jpeg": b"x",
            f"{TOP}/TRAIN/DRAGON/dragon.jpeg": b"x",
            f"{TOP}/TRAIN/MONOCYTE/virus.exe": b"x",
        },
    )
    unpack_kaggle(archive, tmp_path / "data" / "inner")
    assert everything_in(tmp_path) == {
        "a.zip",
        "data/inner/kaggle-blood-cells/TRAIN/MONOCYTE/good.jpeg",
        "data/inner/kaggle-blood-cells/TRAIN/MONOCYTE/root.jpeg",
    }


def test_a_link_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = zipped(tmp_path / "a.zip", {f"{TOP}/TEST/MONOCYTE/good.jpeg": b"x"})
    link = zipfile.ZipInfo(f"{TOP}/TEST/MONOCYTE/link.jpeg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as writing:
        writing.writestr(link, "/etc/passwd")
    assert unpack_kaggle(archive, tmp_path / "data") == {"TEST": 1}
    assert "left out 1 links" in capsys.readouterr().err


def test_the_same_file_twice_is_one_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    members = {f"{TOP}/TRAIN/MONOCYTE/1.jpeg": b"x", f"again/{TOP}/TRAIN/MONOCYTE/1.jpeg": b"x"}
    assert unpack_kaggle(zipped(tmp_path / "a.zip", members), tmp_path / "data") == {"TRAIN": 1}
    members[f"again/{TOP}/TRAIN/MONOCYTE/1.jpeg"] = b"y"
    with pytest.raises(UnusableData, match="two different files"):
        unpack_kaggle(zipped(tmp_path / "b.zip", members), tmp_path / "data")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquire, "MOST_BYTES", 1_000_000)
    archive = zipped(tmp_path / "a.zip", {f"{TOP}/TRAIN/MONOCYTE/{n}.jpeg": bytes(400_000) for n in range(3)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(UnusableData, match="would take more than"):
        unpack_kaggle(archive, tmp_path / "data")
    monkeypatch.setattr(acquire, "MOST_FILES", 2)
    with pytest.raises(UnusableData, match="more than 2 files"):
        unpack_kaggle(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_declares(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"{TOP}/TRAIN/MONOCYTE/1.jpeg": bytes(400_000)})
    content = archive.read_bytes()
    assert content.count(struct.pack("<I", 400_000)) == 2
    archive.write_bytes(content.replace(struct.pack("<I", 400_000), struct.pack("<I", 400)))
    with pytest.raises(UnusableData, match="is damaged"):
        unpack_kaggle(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_damaged_member_leaves_nothing_behind(tmp_path: Path) -> None:
    members = {f"{TOP}/TRAIN/MONOCYTE/{n}.jpeg": bytes(range(256)) * 40 for n in range(3)}
    archive = zipped(tmp_path / "a.zip", members)
    content = bytearray(archive.read_bytes())
    middle = content.index(b"2.jpeg") + 40
    content[middle : middle + 60] = b"\xff" * 60
    archive.write_bytes(bytes(content))
    (tmp_path / "data").mkdir()
    with pytest.raises(UnusableData, match=r"'kaggle-blood-cells/TRAIN/MONOCYTE/2.jpeg' is damaged"):
        unpack_kaggle(archive, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"{TOP}/TRAIN/MONOCYTE/1.jpeg": b"x"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(content))
    with pytest.raises(UnusableData, match="is encrypted"):
        unpack_kaggle(archive, tmp_path / "data")


def test_a_zip_that_was_cut_short_or_is_a_folder_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"{TOP}/TRAIN/MONOCYTE/1.jpeg": bytes(1000)})
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(UnusableData, match="its end is missing"):
        unpack_kaggle(archive, tmp_path / "data")
    with pytest.raises(UnusableData, match="can't be opened"):
        unpack_kaggle(tmp_path, tmp_path / "data")


def test_the_photographs_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", {"BCCD_Dataset-master/BCCD/JPEGImages/1.jpg": b"x", "other/setup.py": b"y"})
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(archive.read_bytes()))
    assert fetch_bccd(tmp_path / "data") == {"JPEGImages": 1}
    assert everything_in(tmp_path / "data") == {"bccd/JPEGImages/1.jpg"}


def test_without_the_internet_fetching_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(UnusableData, match="is the internet reachable"):
        fetch_bccd(tmp_path / "data")
    assert not (tmp_path / "data").exists()
