"""`python -m ml adapt`: the bundle that it writes, what its card says, and what it refuses."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml import adapt as adapting
from ml import adapt_trial
from ml.__main__ import main
from ml.adapt import METRICS_KEY, adapt_bundle
from ml.calibrate import look
from ml.errors import UnusableData
from ml.junk import drawn_junk
from ml.local_cells import read_pictures
from ml.model_card import CARD_FILE, read_card, verify_bundle
from ml.predictor import LiteRTPredictor, load_predictor, softmax
from ml.views import as_served

from .smears import draw_cell, encoded

SECRET = "mustermann-erika"


def local_picture(kind: int, seed: int) -> bytes:
    pixels = draw_cell(120, seed)
    return encoded(np.ascontiguousarray(pixels[..., ::-1]) if kind else pixels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    for kind, name in enumerate(["Lymphocytes", "Monocytes"]):
        (folder / name).mkdir()
        for seed in range(11):
            (folder / name / f"{SECRET}-{seed}.png").write_bytes(local_picture(kind, 100 * kind + seed))
    return folder


@pytest.fixture(scope="module")
def adapted(folders: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("bundles") / "adapted"
    return out, adapt_bundle(bundle, folders, out)


@pytest.fixture(scope="module")
def adapted_predictor(adapted: tuple[Path, dict[str, Any]]) -> LiteRTPredictor:
    return load_predictor(adapted[0])


@pytest.fixture(scope="module")
def adapted_from_all_sides(folders: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Through the command line's door."""
    out = tmp_path_factory.mktemp("bundles") / "all-sides"
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(adapting, "_DRAWN_JUNK", 30)
        assert main(["adapt", "--model", str(bundle), "--data", str(folders), "--out", str(out), "--views", "8"]) == 0
    return out


def test_what_is_fitted_in_eight_views_is_served_in_eight(
    adapted_from_all_sides: Path, adapted: tuple[Path, dict[str, Any]], folders: Path, bundle: Path
) -> None:
    card = verify_bundle(adapted_from_all_sides)
    assert card.views == 8
    assert read_card(bundle).views == 1
    assert read_card(adapted[0]).views == adapted[1]["views"]
    assert adapted[1]["views"] == 8 or card.version != adapted[1]["version"]
    predictor = load_predictor(adapted_from_all_sides)
    pictures = read_pictures(folders, card.labels)
    seen = look(predictor.runtime, pictures.views.reshape(-1, *pictures.views.shape[2:]), "views")
    fitted = as_served(seen.pooled.reshape(*pictures.views.shape[:2], -1), 8)
    expected = softmax(predictor.head.logits(fitted) / np.float32(card.temperature))
    files = sorted(folders.rglob("*.png"))
    said = predictor.predict([predictor.prepare(path.read_bytes()) for path in files])
    for place, path in enumerate(files):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        probabilities = list(said[place].probabilities.values())
        assert probabilities == pytest.approx(expected[pictures.digests.index(digest)].tolist(), abs=1e-4)


def test_the_report_gives_both_numbers_of_views_and_the_price(adapted: tuple[Path, dict[str, Any]]) -> None:
    report = adapted[1]
    both = [report["cross_validation"][name]["accuracy"] for name in ("adapted_head", "adapted_head_eight_views")]
    assert report["views"] == (8 if both[1] > both[0] else 1)
    assert report["after"]["accuracy"] == max(*both, report["before"]["accuracy"])
    assert report["network_ms"]["after"] == pytest.approx(report["views"] * report["network_ms"]["before"], abs=0.5)


def test_an_adapted_bundle_is_whole(adapted: tuple[Path, dict[str, Any]], bundle: Path) -> None:
    out, report = adapted
    card, old = verify_bundle(out), read_card(bundle)
    assert card.sha256 == old.sha256 == verify_bundle(bundle).sha256
    assert (card.name, card.labels) == (old.name, old.labels)
    assert card.version == report["version"]
    assert card.version.startswith(f"{old.version}+")
    assert len(card.version) <= 40
    assert sorted(path.name for path in out.iterdir()) == sorted([*card.files, CARD_FILE])
    print(f"adapted in {report['seconds']} s")


def test_the_card_says_what_was_done_and_no_old_figures(adapted: tuple[Path, dict[str, Any]], bundle: Path) -> None:
    out, report = adapted
    card, old = read_card(out), read_card(bundle)
    assert list(card.metrics) == [METRICS_KEY]
    figures = card.metrics[METRICS_KEY]
    assert figures["cross_validated"] is True
    assert figures["n"] == report["n"] == 22
    assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]
    assert figures["accuracy"] == max(
        report["cross_validation"][name]["accuracy"]
        for name in ("zero_shot_head", "adapted_head", "adapted_head_eight_views")
    )
    assert card.training["manifest_sha256"] == old.training["manifest_sha256"]
    assert card.training["adapted"]["of"] == old.version
    assert {label: len(each) for label, each in card.training["adapted"]["cells_sha256"].items()} == {
        "lymphocyte": 11,
        "monocyte": 11,
    }
    assert len(card.limits) > len(old.limits)


def test_the_card_names_no_picture(adapted: tuple[Path, dict[str, Any]], folders: Path) -> None:
    text = (adapted[0] / CARD_FILE).read_text()
    assert SECRET not in text
    assert str(folders) not in text


def test_an_adapted_bundle_answers_no_worse(
    adapted_predictor: LiteRTPredictor, predictor: LiteRTPredictor, adapted: tuple[Path, dict[str, Any]]
) -> None:
    pictures = [(local_picture(kind, 150 + number), kind) for number in range(6) for kind in (0, 1)]
    right = []
    for each in (predictor, adapted_predictor):
        predictions = each.predict([each.prepare(picture) for picture, _ in pictures])
        said = [max(prediction.probabilities.items(), key=lambda pair: pair[1])[0] for prediction in predictions]
        truth = [("lymphocyte", "monocyte")[kind] for _, kind in pictures]
        right.append(sum(a == b for a, b in zip(said, truth, strict=True)))
    assert adapted[1]["kept"] == "adapted head"
    assert right[1] > right[0]
    for prediction in predictions:
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert prediction.heat_map is None or prediction.heat_map.max() == 1


def test_junk_is_refused_by_an_adapted_bundle(adapted_predictor: LiteRTPredictor) -> None:
    junk = [adapted_predictor.prepare(encoded(picture)) for picture in drawn_junk(48, 150, seed=5)]
    assert sum(prediction.label is None for prediction in adapted_predictor.predict(junk)) >= 46


def test_the_same_cells_give_the_same_bundle(
    adapted: tuple[Path, dict[str, Any]], folders: Path, bundle: Path, tmp_path: Path
) -> None:
    out, report = adapted
    again = adapt_bundle(bundle, folders, tmp_path / "again")
    assert again["version"] == report["version"]
    assert read_card(tmp_path / "again").files == read_card(out).files


def test_an_adapted_bundle_is_not_adapted_again(adapted: tuple[Path, dict[str, Any]], folders: Path) -> None:
    with pytest.raises(UnusableData, match="adapted already"):
        adapt_bundle(adapted[0], folders, adapted[0].parent / "twice")


def test_nothing_half_written_is_left(
    folders: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(adapting, "save_bank", full)
    monkeypatch.setattr(adapting, "_DRAWN_JUNK", 30)
    with pytest.raises(UnusableData, match="could not be written"):
        adapt_bundle(bundle, folders, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_trial_says_how_adapting_would_do(
    folders: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adapting, "_DRAWN_JUNK", 30)
    options = ["--model", str(bundle), "--data", str(folders), "--labelled", "20", "--draws", "1"]
    assert adapt_trial.main([*options, "--views", "8"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [(draw["n"], draw["views"]) for draw in figures["per_draw"]] == [(2, 8)]
    assert adapt_trial.main([*options[:-3], "22"]) == 2
    assert "fewer than 22" in capsys.readouterr().err


def test_the_same_file_twice_counts_once(folders: Path, tmp_path: Path, bundle: Path) -> None:
    copy = Path(shutil.copytree(folders, tmp_path / "copy"))
    shutil.copy(copy / "Monocytes" / f"{SECRET}-1.png", copy / "Monocytes" / "copy.png")
    assert len(read_pictures(copy, read_card(bundle).labels).labels) == 22


def spoil_nothing_there(folder: Path) -> None:
    shutil.rmtree(folder)


def spoil_too_few(folder: Path) -> None:
    for path in sorted(folder.rglob("*.png"))[:3]:
        path.unlink()


def spoil_one_class(folder: Path) -> None:
    for path in sorted((folder / "Monocytes").iterdir()):
        path.rename(folder / "Lymphocytes" / f"other-{path.name}")
    (folder / "Monocytes").rmdir()


def spoil_unknown_class(folder: Path) -> None:
    (folder / "Monocytes").rename(folder / "Martians")


def spoil_class_of_other_models(folder: Path) -> None:
    (folder / "Monocytes").rename(folder / "Smudge cells")


def spoil_unreadable(folder: Path) -> None:
    (folder / "Monocytes" / "broken.png").write_text("no picture")


def spoil_two_labels(folder: Path) -> None:
    shutil.copy(folder / "Monocytes" / f"{SECRET}-1.png", folder / "Lymphocytes" / "same.png")


SPOILT = {
    spoil_nothing_there: "can't be read",
    spoil_too_few: "at least 20",
    spoil_one_class: "at least two types",
    spoil_unknown_class: "not a known cell type",
    spoil_class_of_other_models: "does not know the cell type",
    spoil_unreadable: "1 of the pictures can't be read",
    spoil_two_labels: "two class folders",
}


def refused(capsys: pytest.CaptureFixture[str], bundle: Path, data: Path, out: Path) -> str:
    assert main(["adapt", "--model", str(bundle), "--data", str(data), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__.removeprefix("spoil_"))
def test_unusable_cells_are_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], folders: Path, bundle: Path, tmp_path: Path, spoil: object
) -> None:
    copy = Path(shutil.copytree(folders, tmp_path / "copy"))
    assert callable(spoil)
    spoil(copy)
    assert SPOILT[spoil] in refused(capsys, bundle, copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_in_use_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], folders: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt"):
        assert "must be a new or an empty folder" in refused(capsys, bundle, folders, out)
    assert (tmp_path / "mine.txt").read_text() == "mine"
