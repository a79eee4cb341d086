import csv
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ml.__main__ import main
from ml.errors import UnusableData
from ml.images import decode
from ml.seed.pictures import find_parts, load_frames, read_pictures, whole_frame
from ml.seed.recipe import SeedRecipe, find_weights
from ml.seed.report import figures_on_test
from ml.seed.views import MORE, USUAL, random_view

from .kaggle_folders import CLASSES, draw_kaggle_folders
from .smears import draw_cell, encoded

PER_CLASS = 6

# Some of these train in a process of their own, which takes minutes on a busy machine.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def kaggle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_kaggle_folders(tmp_path_factory.mktemp("kaggle") / "dataset2-master" / "images", PER_CLASS)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the right shape, drawn at random."""
    keras = pytest.importorskip("keras", reason="not run: TensorFlow is not installed")
    keras.utils.set_random_seed(3)
    backbone = keras.applications.MobileNetV2(input_shape=(32, 32, 3), include_top=False, weights=None)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # As drawn, each layer would shrink what it gets until nothing is left to learn from.
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma * 3, beta + 0.1, mean, variance])
    path = tmp_path_factory.mktemp("weights") / "random.weights.h5"
    backbone.save_weights(str(path))
    return path


def train(data: Path, out: Path, weights: Path, *more: str) -> int:
    return main(["train", "--config", "seed", "--data", str(data), "--out", str(out), "--weights", str(weights), *more])


@pytest.fixture(scope="session")
def run(kaggle: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One small run of both ways of training."""
    out = tmp_path_factory.mktemp("seed") / "new" / "out"
    status = train(
        kaggle.parent.parent, out, weights, "--size", "32", "--batch", "8", "--epochs", "2", "--cache-features"
    )
    assert status == 0
    return out, json.loads((out / "report.json").read_text())


def test_a_run_leaves_model_log_drawings_and_report(run: tuple[Path, dict[str, Any]]) -> None:
    out, _ = run
    way = {"Blood Cell.h5", "training.csv", "training_curves.png", "confusion_matrix.png"}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *way,
        *(f"as-written/{name}" for name in way),
        "samples.png",
        "augmentation.png",
        "report.json",
    }
    for drawing in out.rglob("*.png"):
        with Image.open(drawing) as picture:
            assert min(picture.size) > 100


def test_the_report_adds_up(run: tuple[Path, dict[str, Any]]) -> None:
    _, report = run
    n = len(CLASSES) * PER_CLASS
    assert report["data"]["training"] + report["data"]["validation"] == n
    assert report["data"]["validation_split_by"] == "file"
    assert report["options"] == SeedRecipe(size=32, batch=8, epochs=2, cache_features=True).as_dict()
    for figures in (report, report["as_written"]):
        assert figures["n"] == n
        counts = np.array([list(row.values()) for row in figures["confusion"].values()])
        assert counts.sum() == n
        assert figures["accuracy"] == pytest.approx(np.trace(counts) / n)
        assert figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"]
        assert figures["originals"] is None
        assert figures["per_class"]["monocyte"]["sensitivity"] == pytest.approx(counts[2, 2] / PER_CLASS)
    speed = report["speed"]["seconds"]
    assert speed["cached"] == pytest.approx(report["seconds"]["features"] + report["seconds"]["head"])
    assert speed["times_faster"] == pytest.approx(speed["as_written"] / speed["cached"])


def test_the_log_has_a_row_an_epoch(run: tuple[Path, dict[str, Any]]) -> None:
    out, report = run
    for folder, figures in ((out, report), (out / "as-written", report["as_written"])):
        rows = list(csv.DictReader((folder / "training.csv").open()))
        assert [row["epoch"] for row in rows] == ["1", "2"]
        assert float(rows[-1]["validation_accuracy"]) == figures["validation_accuracy"]


def test_the_saved_model_answers_in_alphabetical_order_as_the_report_says(
    run: tuple[Path, dict[str, Any]], kaggle: Path
) -> None:
    import keras

    out, report = run
    assert report["data"]["classes"] == ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
    model = keras.models.load_model(out / "Blood Cell.h5")
    right = []
    for label, folder in enumerate(sorted((kaggle / "TEST").iterdir())):
        frames = np.stack([whole_frame(decode(path.read_bytes()), 32) for path in sorted(folder.iterdir())])
        right += list(model.predict_on_batch(frames / np.float32(255)).argmax(1) == label)
    assert np.mean(right) == pytest.approx(report["accuracy"])


def test_both_ways_train_the_head_alone_and_from_the_same_start(
    run: tuple[Path, dict[str, Any]], weights: Path
) -> None:
    import keras

    from ml.network import backbone_of

    out, _ = run
    first, second = (keras.models.load_model(out / name / "Blood Cell.h5") for name in (".", "as-written"))
    frozen = keras.applications.MobileNetV2(input_shape=(32, 32, 3), include_top=False, weights=None)
    frozen.load_weights(str(weights))
    for model in (first, second):
        for mine, given in zip(backbone_of(model).get_weights(), frozen.get_weights(), strict=True):
            assert np.array_equal(mine, given)
    heads = [model.get_layer("hidden").get_weights()[0] for model in (first, second)]
    assert not np.allclose(*heads)
    # A few small steps from one start: alike, unlike two heads that were drawn apart.
    assert np.corrcoef(heads[0].ravel(), heads[1].ravel())[0, 1] > 0.8


def test_the_head_on_features_is_the_head_of_the_network(weights: Path) -> None:
    from ml.seed.network import build_seed_network, head_on_features, pooled_features, probabilities

    network = build_seed_network(4, 32, weights)
    frames = np.stack([whole_frame(draw_cell(seed=seed), 32) for seed in range(3)])
    by_features = head_on_features(network).predict_on_batch(pooled_features(network, frames))
    whole = probabilities(network, frames)
    assert np.allclose(by_features, whole, atol=1e-5)
    assert whole.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_unfreezing_trains_the_last_blocks_for_as_many_epochs_again(
    weights: Path, tmp_path: Path, step_by_step: Callable[[], AbstractContextManager[None]]
) -> None:
    from ml.network import backbone_of
    from ml.seed.network import build_seed_network
    from ml.seed.training import Frames, train_as_written

    frames = Frames(np.stack([whole_frame(draw_cell(seed=seed), 32) for seed in range(4)]), np.arange(4) % 2)
    network = build_seed_network(2, 32, weights)
    before = {layer.name: layer.get_weights() for layer in backbone_of(network).layers}
    recipe = SeedRecipe(size=32, batch=4, epochs=1, unfreeze=True, more_augmentation=True)
    with step_by_step():
        course = train_as_written(network, frames, frames, recipe, tmp_path / "log.csv")
    changed = {
        layer.name
        for layer in backbone_of(network).layers
        for old, new in zip(before[layer.name], layer.get_weights(), strict=True)
        if not np.array_equal(old, new)
    }
    assert changed == {
        f"block_{number}_{part}" for number in (14, 15, 16) for part in ("expand", "depthwise", "project")
    } | {"Conv_1"}
    assert [row["epoch"] for row in course.rows] == [1, 2]
    assert set(course.seconds) == {"training", "fine_tuning"}


def test_each_epoch_shows_every_frame_once_and_anew() -> None:
    pytest.importorskip("tensorflow", reason="not run: TensorFlow is not installed")
    from ml.seed.training import Frames, view_batches

    frames = Frames(np.stack([np.full((8, 8, 3), 20 * index, np.uint8) for index in range(10)]), np.arange(10) % 3)
    recipe = SeedRecipe(batch=4, epochs=2)
    batches = list(view_batches(frames, recipe, 0, 3))
    assert [len(views) for views, _ in batches] == [4, 4, 2, 4, 4, 2]
    for epoch in (batches[:3], batches[3:]):
        seen = np.concatenate([views[:, 4, 4, 0] for views, _ in epoch])
        targets = np.concatenate([labels for _, labels in epoch])
        assert sorted((seen * 255).round().astype(int)) == list(range(0, 200, 20))
        assert np.array_equal(targets.argmax(1), (seen * 255 / 20).round().astype(int) % 3)
    assert not np.array_equal(batches[0][1], batches[3][1])
    again = list(view_batches(frames, recipe, 0, 3))
    assert all(
        np.array_equal(a, b) for one, two in zip(batches, again, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_views_keep_the_shape_and_more_augmentation_goes_further() -> None:
    frame = whole_frame(draw_cell(), 64)
    random = np.random.default_rng(0)
    distances = [
        np.mean([abs(random_view(frame, random, ranges).astype(float) - frame).mean() for _ in range(30)])
        for ranges in (USUAL, MORE)
    ]
    assert random_view(frame, random).shape == frame.shape
    assert distances[1] > distances[0] > 1


@pytest.mark.parametrize("inside", [".", "dataset2-master/images", "a/b/dataset2-master/images", "kaggle-blood-cells"])
def test_train_and_test_are_found_however_they_lie(tmp_path: Path, inside: str) -> None:
    for part in ("TRAIN", "TEST", "TEST_SIMPLE"):
        (tmp_path / inside / part).mkdir(parents=True)
    assert find_parts(tmp_path) == (tmp_path / inside / "TRAIN", tmp_path / inside / "TEST")


def test_frames_are_squeezed_as_keras_does(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras", reason="not run: TensorFlow is not installed")
    path = tmp_path / "cell.png"
    path.write_bytes(encoded(draw_cell(200)[:150]))
    theirs = keras.utils.img_to_array(keras.utils.load_img(path, target_size=(50, 50)))
    assert np.array_equal(whole_frame(decode(path.read_bytes()), 50), theirs)


@pytest.mark.parametrize("of_each_class", [60, pytest.param(None, marks=pytest.mark.long)])
def test_on_the_kaggle_set_no_photograph_is_on_both_sides(data: Path, of_each_class: int | None) -> None:
    """Of all 2,800 pictures it takes minutes, unless the photographs behind them are known from another time."""
    pictures = read_pictures(data, 0.2, of_each_class)
    n = 4 * (of_each_class or 700)
    cached = json.loads((Path(__file__).parents[2] / "var" / "cache" / "kaggle-train-originals.json").read_text())
    training, validation = (
        {cached[f"{path.parent.name}/{path.name}"] for path, _ in part}
        for part in (pictures.training, pictures.validation)
    )
    assert pictures.split == "photograph"
    assert not training & validation
    assert not (training | validation) & {*pictures.originals.values(), None}
    assert len(pictures.training) + len(pictures.validation) + pictures.left_out == n
    assert 0.15 < len(pictures.validation) / n < 0.25


def test_figures_are_clustered_by_photograph_where_it_is_known(kaggle: Path) -> None:
    pictures = read_pictures(kaggle, 0.25)
    truth = pictures.indices(pictures.test)
    answers = np.eye(4, dtype=np.float32)[truth]
    wrong = [index for index, (path, _) in enumerate(pictures.test) if path.parent.name == "MONOCYTE"]
    answers[wrong] = [1, 0, 0, 0]
    by_file = figures_on_test(pictures, answers)
    known = {path: path.parent.name for path, _ in pictures.test}
    by_photograph = figures_on_test(replace(pictures, originals=known), answers)
    assert by_file["accuracy"] == by_photograph["accuracy"] == 0.75
    assert (by_file["interval_by"], by_photograph["interval_by"]) == ("file", "photograph")
    assert by_photograph["accuracy_low"] < by_file["accuracy_low"]
    assert by_photograph["originals"] == {"n": 4, "right": 3}
    assert by_file["per_class"]["eosinophil"]["ppv"] == 0.5
    with pytest.raises(UnusableData, match="went astray"):
        figures_on_test(pictures, answers * np.nan)


def test_weights_are_the_given_ones_or_those_of_the_data_folder_or_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMATOVISION_DATA", str(tmp_path / "nowhere"))
    assert find_weights(None, tmp_path) == "imagenet"
    lying = tmp_path / "weights" / "mobilenet_v2_1.0_160_no_top.weights.h5"
    lying.parent.mkdir()
    lying.write_bytes(b"")
    assert find_weights(None, tmp_path) == lying
    with pytest.raises(UnusableData, match="was not found"):
        find_weights(tmp_path / "none.h5", tmp_path)


def refused(capsys: pytest.CaptureFixture[str], data: Path, out: Path, weights: Path, *more: str) -> str:
    """Train in vain: exit status 2, nothing written, and one sentence, which is returned."""
    before = sorted(out.parent.rglob("*"))
    assert train(data, out, weights, "--size", "32", *more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert sorted(out.parent.rglob("*")) == before
    return captured.err.strip().splitlines()[-1]


def test_folders_that_cannot_be_used_are_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, weights: Path
) -> None:
    out = tmp_path / "out"
    assert "no folders TRAIN and TEST" in refused(capsys, tmp_path, out, weights)
    one = draw_kaggle_folders(tmp_path / "one", 2, ("MONOCYTE",))
    assert "one class only" in refused(capsys, one, out, weights)
    two = draw_kaggle_folders(tmp_path / "two", 1, ("MONOCYTE", "NEUTROPHIL"))
    assert "too few pictures" in refused(capsys, two, out, weights)
    (two / "TEST" / "BASOPHIL").mkdir()
    assert "'BASOPHIL' has no pictures" in refused(capsys, two, out, weights)
    (two / "TEST" / "BASOPHIL" / "x.png").write_bytes(encoded(draw_cell()))
    assert "'basophil', which TRAIN does not" in refused(capsys, two, out, weights)
    (two / "TRAIN" / "DRAGON").mkdir()
    assert "'DRAGON' is not a known cell type" in refused(capsys, two, out, weights)


def test_pictures_that_cannot_be_read_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = draw_kaggle_folders(tmp_path / "data", 4), tmp_path / "out"
    tiny = data / "TEST" / "MONOCYTE" / "tiny.png"
    tiny.write_bytes(encoded(draw_cell(16)))
    assert "MONOCYTE/tiny.png is smaller than 32 pixels" in refused(capsys, data, out, weights)
    (data / "TEST" / "MONOCYTE" / "text.png").write_text("no picture")
    assert "text.png could not be read as a picture, and 1 more are unusable" in refused(capsys, data, out, weights)
    read = Path.read_bytes

    def read_open(path: Path) -> bytes:
        # Not by file modes: root may read everything.
        if path.name == "tiny.png":
            raise PermissionError
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_open)
    with pytest.raises(UnusableData, match=r"tiny.png could not be opened"):
        load_frames([(tiny, "monocyte")], 32)


def test_weights_that_do_not_fit_or_cannot_be_had_are_refused(
    capsys: pytest.CaptureFixture[str], kaggle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras = pytest.importorskip("keras", reason="not run: TensorFlow is not installed")
    bad = tmp_path / "bad.h5"
    bad.write_text("no weights")
    assert "does not fit MobileNetV2" in refused(capsys, kaggle, tmp_path / "out", bad)

    def unreachable(**settings: object) -> None:
        assert settings["weights"] == "imagenet"
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV2", unreachable)
    from ml.seed.network import build_seed_network

    with pytest.raises(UnusableData, match="could not be downloaded"):
        build_seed_network(4, 32, "imagenet")


def in_a_process(*arguments: object, **settings: Any) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "ml",
        "train",
        "--config",
        "seed",
        "--size",
        "32",
        *(str(word) for word in arguments),
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        **settings,
    )


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """A shell's background jobs ignore Ctrl-C, and so would what the tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
@pytest.mark.parametrize(
    ("sent", "status", "sentence"), [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Ended from outside.")]
)
def test_an_interrupted_training_leaves_nothing(
    kaggle: Path, weights: Path, tmp_path: Path, sent: signal.Signals, status: int, sentence: str
) -> None:
    out = tmp_path / "out"
    arguments = ("--data", kaggle, "--out", out, "--weights", weights, "--epochs", "5000", "--batch", "8")
    with in_a_process(*arguments) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("as written"):
                break
        assert list(out.glob(".unfinished-*/training.csv"))
        process.send_signal(sent)
        rest = process.stderr.read()
        assert process.wait(300) == status
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert rest.strip().splitlines()[-1] == sentence
    assert "Traceback" not in rest
    assert not out.exists()


def test_a_disk_that_takes_no_more_is_a_sentence_and_keeps_what_was_there(
    kaggle: Path, weights: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    out = tmp_path / "out"
    out.mkdir()
    (out / "Blood Cell.h5").write_text("an earlier model")
    arguments = ("--data", kaggle, "--out", out, "--weights", weights, "--epochs", "1")
    with in_a_process(*arguments, preexec_fn=limit) as process:
        printed, said = process.communicate(timeout=800)
    assert process.returncode == 2
    assert printed == ""
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("A file grew larger than it may here")
    assert [path.name for path in out.iterdir()] == ["Blood Cell.h5"]
    assert (out / "Blood Cell.h5").read_text() == "an earlier model"
