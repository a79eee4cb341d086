import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml.__main__ import main
from ml.model_card import read_card

from .smears import draw_cell, draw_field, encoded

PREDICT_KEYS = {
    "file",
    "label",
    "suggestion",
    "confidence",
    "probabilities",
    "conformal_set",
    "abstained",
    "reason",
    "ood_score",
    "box",
    "model",
}
EVALUATE_KEYS = {
    "n",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
    "accuracy_restricted",
    "per_class",
    "confusion",
    "ece",
    "conformal_coverage",
    "conformal_mean_size",
    "abstained",
    "accuracy_answered",
    "ood_refused",
    "images_per_second",
}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    cell, field, text = tmp_path / "cell.png", tmp_path / "field.png", tmp_path / "text.jpg"
    cell.write_bytes(encoded(draw_cell()))
    field.write_bytes(encoded(draw_field(320, 240, [(100, 90, 60)])))
    text.write_text("no picture")
    return [cell, field, text]


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    for seed, name in enumerate(["Monocytes", "IG"]):
        (tmp_path / "cells" / name).mkdir(parents=True)
        for number in range(3):
            picture = encoded(draw_cell(seed=10 * seed + number))
            (tmp_path / "cells" / name / f"{number}.png").write_bytes(picture)
    return tmp_path / "cells"


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        status = int(str(exit_.code))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_predict_gives_one_json_object_a_line(
    capsys: pytest.CaptureFixture[str], pictures: list[Path], bundle: Path
) -> None:
    status, out, _ = outcome(capsys, "predict", *pictures, "--json")
    assert status == 0
    cell, field, text = (json.loads(line) for line in out.splitlines())
    for line, path in zip((cell, field), pictures, strict=False):
        assert set(line) >= PREDICT_KEYS
        assert line["file"] == str(path)
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    card = read_card(bundle)
    assert cell["model"] == {"name": card.name, "version": card.version, "sha256": card.sha256}
    assert cell["box"] is None
    assert len(field["box"]) == 4
    assert text == {"file": str(pictures[2]), "error": text["error"]}
    assert set(text["error"]) == {"code", "message"}


def test_predict_for_people_is_a_line_each(capsys: pytest.CaptureFixture[str], pictures: list[Path]) -> None:
    status, out, _ = outcome(capsys, "predict", *pictures)
    assert status == 0
    assert [line.split(":")[0] for line in out.splitlines()] == [str(path) for path in pictures]


def test_a_file_that_is_not_there_is_a_line_with_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = outcome(capsys, "predict", tmp_path / "none.png", "--json")
    assert status == 0
    assert json.loads(out)["error"]["code"] == "unreadable"


def test_evaluate_writes_the_figures(capsys: pytest.CaptureFixture[str], class_folders: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "figures.json"
    status, out, err = outcome(capsys, "evaluate", "--data", class_folders, "--json", target)
    assert status == 0
    figures = json.loads(target.read_text())
    assert json.loads(out) == figures
    assert set(figures) >= EVALUATE_KEYS
    assert figures["n"] == 6
    assert set(figures["per_class"]) == {"immature_granulocyte", "monocyte"}
    assert "evaluate 6/6" in err


def test_one_class_only_is_evaluated(capsys: pytest.CaptureFixture[str], class_folders: Path, tmp_path: Path) -> None:
    for picture in (class_folders / "IG").iterdir():
        picture.unlink()
    (class_folders / "IG").rmdir()
    status, out, _ = outcome(capsys, "evaluate", "--data", class_folders, "--json", tmp_path / "figures.json")
    assert status == 0
    assert json.loads(out)["accuracy_restricted"] == 1.0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dream"],
        ["predict"],
        ["evaluate", "--json", "x.json"],
        ["train", "--config", "other", "--out", "x"],
        ["train", "--config", "product", "--out", "x", "--steps", "0"],
        ["train", "--config", "product", "--out", "x", "--data", "no-such-folder"],
        ["evaluate", "--data", "no-such-folder", "--json", "x.json"],
        ["predict", "x.png", "--model", "no-such-folder"],
        ["calibrate", "--model", "no-such-folder"],
        ["data", "no-such.zip"],
        ["data", "fetch", "everything"],
    ],
)
def test_unusable_arguments_give_two_and_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = outcome(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_commands_without_tensorflow_say_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = outcome(capsys, "train", "--config", "product", "--out", tmp_path / "new")
    assert status == 2
    assert "TensorFlow" in err


def run_python(code: str, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME"}}
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return finished.stdout


def test_predict_loads_nothing_that_only_training_needs(pictures: list[Path]) -> None:
    code = (
        "import sys; from ml.__main__ import main; main(['predict', *sys.argv[1:]]);"
        "print(sorted({'tensorflow', 'keras', 'matplotlib', 'django', 'scipy'} & set(sys.modules)))"
    )
    assert run_python(code, str(pictures[0])).splitlines()[-1] == "[]"


def test_the_card_needs_the_standard_library_only() -> None:
    code = (
        "import sys; from ml.model_card import read_card, shipped_bundle, verify_bundle; import ml.labels;"
        "verify_bundle(shipped_bundle());"
        "print(sorted({'numpy', 'cv2', 'PIL', 'ai_edge_litert', 'tensorflow'} & set(sys.modules)))"
    )
    assert run_python(code).strip() == "[]"
