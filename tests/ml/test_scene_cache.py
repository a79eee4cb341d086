from pathlib import Path

import numpy as np
import pytest

from ml import scene_cache
from ml.dataset import Scene
from ml.scene_cache import cached_scenes

from .smears import draw_cell, draw_field, encoded


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    pictures = {"cell": draw_cell(), "field": draw_field(320, 240, [(120, 90, 60)])}
    for name, pixels in pictures.items():
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [tmp_path / "cell.png", tmp_path / "broken.png", tmp_path / "field.png"]


def same(first: list[Scene | None], second: list[Scene | None]) -> bool:
    return all(
        (a is None and b is None)
        or (a is not None and b is not None and a.window == b.window and np.array_equal(a.pixels, b.pixels))
        for a, b in zip(first, second, strict=True)
    )


def test_the_second_time_nothing_is_decoded(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached_scenes(paths, tmp_path / "kept")
    assert first[1] is None
    monkeypatch.setattr(scene_cache, "load_scenes", None)
    assert same(first, cached_scenes(paths, tmp_path / "kept"))


def test_a_changed_picture_is_decoded_anew(paths: list[Path], tmp_path: Path) -> None:
    first = cached_scenes(paths, tmp_path / "kept")
    paths[0].write_bytes(encoded(draw_cell(seed=5)))
    assert not same(first, cached_scenes(paths, tmp_path / "kept"))


@pytest.mark.parametrize(("suffix", "left"), [("npy", -100), ("npz", -100), ("npz", 0)])
def test_what_is_not_whole_is_not_used(paths: list[Path], tmp_path: Path, suffix: str, left: int) -> None:
    first = cached_scenes(paths, tmp_path / "kept")
    kept = next((tmp_path / "kept").glob(f"*.{suffix}"))
    kept.write_bytes(kept.read_bytes()[:left])
    assert same(first, cached_scenes(paths, tmp_path / "kept"))


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    assert cached_scenes(paths, tmp_path / "kept")[0] is not None
    assert "could not be kept" in capsys.readouterr().err
