from pathlib import Path

import pytest

from ml.benchmark import benchmark
from ml.errors import UnusableData

from .smears import draw_cell, encoded


def test_benchmark_gives_the_cost_of_each_part(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml.benchmark._ROUNDS", 2)
    (tmp_path / "neutrophil").mkdir()
    for seed in range(9):
        (tmp_path / "neutrophil" / f"{seed}.png").write_bytes(encoded(draw_cell(seed=seed)))
    (tmp_path / "neutrophil" / "broken.jpg").write_bytes(b"no picture")

    figures = benchmark(bundle, tmp_path)

    ms = figures["ms"]
    assert figures["n"] == 9
    assert set(ms) == {
        *("decode", "locate", "prepare", "predict", "answer", "heat_map", "total", "locate_in_field"),
    }
    assert all(ms[part] >= figures["ms_best"][part] >= 0 for part in ms)
    assert ms["total"] > ms["predict"] > 0
    assert figures["images_per_second"] == pytest.approx(1000 / ms["total"], rel=0.01)
    assert figures["start_seconds"] > 0


def test_folder_without_a_picture_is_refused_in_a_sentence(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="has no pictures in it"):
        benchmark(bundle, tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UnusableData, match="None of the pictures could be read"):
        benchmark(bundle, tmp_path)
