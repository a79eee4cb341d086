import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ml.__main__ import main
from ml.model_card import ModelCard, read_card

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
    target = tmp_path / "figures.json"
    target.write_text("older figures")
    status, out, err = outcome(capsys, "evaluate", "--data", class_folders, "--json", target)
    assert status == 0
    figures = json.loads(target.read_text())
    assert json.loads(out) == figures
    assert set(figures) >= EVALUATE_KEYS
    assert figures["n"] == 6
    assert set(figures["per_class"]) == {"immature_granulocyte", "monocyte"}
    assert "evaluate 6/6" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells", "figures.json"]


def test_evaluate_refuses_before_working_where_it_could_not_write(
    capsys: pytest.CaptureFixture[str], class_folders: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    for target, reason in ((tmp_path / "file" / "figures.json", "can't be made"), (class_folders, "is a folder")):
        status, out, err = outcome(capsys, "evaluate", "--data", class_folders, "--json", target)
        assert (status, out) == (2, "")
        assert reason in err
        assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells", "file"]


def test_an_evaluation_that_fails_leaves_the_older_figures(
    capsys: pytest.CaptureFixture[str], class_folders: Path, tmp_path: Path
) -> None:
    target = tmp_path / "figures.json"
    target.write_text("older figures")
    (class_folders / "dragon").mkdir()
    status, _, err = outcome(capsys, "evaluate", "--data", class_folders, "--json", target)
    assert status == 2
    assert "'dragon' is not a known cell type" in err
    assert target.read_text() == "older figures"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells", "figures.json"]


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
        ["train", "--config", "product", "--out", "x", "--leave-out", "jtsc"],
        ["train", "--config", "product", "--out", "x", "--seed", "-1"],
        ["train", "--config", "product", "--out", "x", "--epochs", "3"],
        ["train", "--config", "product", "--out", "x", "--cache-features"],
        ["train", "--config", "seed", "--out", "x", "--steps", "3"],
        ["train", "--config", "seed", "--out", "x", "--version", "2.0.0"],
        ["train", "--config", "seed", "--out", "x", "--leave-out", "pbc"],
        ["train", "--config", "seed", "--out", "x", "--size", "16"],
        ["train", "--config", "seed", "--out", "x", "--unfreeze", "--cache-features"],
        ["train", "--config", "seed", "--out", "x", "--weights", "no-such-file"],
        ["train", "--config", "seed", "--out", "x", "--batch", "many"],
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


def test_an_option_of_the_other_recipe_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, _, err = outcome(capsys, "train", "--config", "product", "--out", tmp_path, "--more-augmentation")
    assert err == "--more-augmentation does not belong to --config product.\n"
    _, _, err = outcome(capsys, "train", "--config", "seed", "--out", tmp_path, "--leave-out", "pbc")
    assert err == "--leave-out does not belong to --config seed.\n"


def test_the_options_of_the_product_reach_its_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path
) -> None:
    pytest.importorskip("tensorflow", reason="not run: TensorFlow is not installed")
    from ml.recipe import Recipe

    given: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def train_product(*values: object, **named: object) -> ModelCard:
        given.append((values, named))
        return read_card(bundle)

    monkeypatch.setattr("ml.product.train_product", train_product)
    start = ["train", "--config", "product", "--data", tmp_path, "--out", tmp_path / "new"]
    assert outcome(capsys, *start, "--steps", 5, "--seed", 3, "--version", "2.1.0", "--leave-out", "kaggle")[0] == 0
    assert outcome(capsys, *start)[0] == 0
    assert given == [
        ((tmp_path, tmp_path / "new", "2.1.0", Recipe(seed=3).with_steps(5), None), {"leave_out": "kaggle"}),
        ((tmp_path, tmp_path / "new", "1.0.0", Recipe(), None), {}),
    ]


@pytest.mark.parametrize("config", ["product", "seed"])
def test_commands_without_tensorflow_say_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = outcome(capsys, "train", "--config", config, "--out", tmp_path / "new")
    assert status == 2
    assert "TensorFlow" in err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full; free some space and run"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b/cells.zip"),
            "Permission was refused for 'cells.zip'.",
        ),
        (FileExistsError(errno.EEXIST, "File exists", "/a/data"), "A file stands where a folder is needed for 'data'."),
    ],
)
def test_what_the_disk_refuses_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("ml.acquire.unpack_kaggle", refuse)
    status, out, err = outcome(capsys, "data", "cells.zip")
    assert (status, out) == (2, "")
    assert err.startswith(sentence)
    assert len(err.splitlines()) == 1


def test_a_fault_that_is_not_the_disks_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("ml.acquire.unpack_kaggle", fail)
    with pytest.raises(OSError, match="Input/output"):
        main(["data", "cells.zip"])


def test_a_request_to_end_is_obeyed_and_other_signals_are_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("ml.acquire.unpack_kaggle", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert outcome(capsys, "data", "cells.zip") == (143, "", "Ended from outside.\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_data_unpacks_the_kaggle_zip(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    archive = tmp_path / "Blood Cell Images.zip"
    with zipfile.ZipFile(archive, "w") as writing:
        writing.writestr("a/dataset2-master/dataset2-master/images/TRAIN/MONOCYTE/1.jpeg", encoded(draw_cell()))
    status, out, _ = outcome(capsys, "data", archive, "--out", tmp_path / "data")
    assert status == 0
    assert json.loads(out) == {"TRAIN": 1}
    assert (tmp_path / "data" / "kaggle-blood-cells" / "TRAIN" / "MONOCYTE" / "1.jpeg").is_file()


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
