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
from ml.adapt import METRICS_KEY, Opened, adapt_bundle, open_bundle
from ml.adapt_trial import COMMON, drawn_again, stratified_draw
from ml.calibrate import look
from ml.errors import UnusableData
from ml.gate import Gate, fit_bank, usual_limits
from ml.head_correction import LocalCells, corrected_head, directions_for, with_correction
from ml.heat_map import Head, grad_cam
from ml.images import decode
from ml.junk import drawn_junk
from ml.local_cells import content_groups, read_pictures
from ml.local_fit import Served, Way, adapt, local_thresholds
from ml.model_card import CARD_FILE, read_card, verify_bundle
from ml.predictor import LiteRTPredictor, load_predictor, softmax
from ml.source_features import SourceFeatures, choose, load, save
from ml.views import as_served, turned

from .smears import draw_cell, encoded

CLASSES, DEPTH = 4, 40
CORRECTED = Way(is_corrected=True, views=1)
SECRET = "mustermann-erika"


# A small world: four clouds of features, a head that knows them, and a microscope that sees them moved.


def clouds(seed: int, count: int, classes: int = CLASSES, moved: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, 40) of the classes about their corners; a new microscope adds the same to each cell."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = random.normal(0, 0.35, (count, DEPTH)) + 3
    features[np.arange(count), labels] += 2
    features[:, 1] += moved
    features[:, 20:30] += moved / 2
    return np.maximum(features, 0).astype(np.float32), labels


@pytest.fixture(scope="module")
def head() -> Head:
    w1 = np.zeros((DEPTH, 8), np.float32)
    w1[np.arange(CLASSES), np.arange(CLASSES)] = 1
    w2 = np.zeros((8, CLASSES), np.float32)
    w2[np.arange(CLASSES), np.arange(CLASSES)] = 3
    return Head(w1, np.full(8, -3, np.float32), w2, np.zeros(CLASSES, np.float32))


@pytest.fixture(scope="module")
def source() -> SourceFeatures:
    features, labels = clouds(1, 200)
    return SourceFeatures(features, labels, ["old"] * 200)


@pytest.fixture(scope="module")
def junk() -> np.ndarray:
    random = np.random.default_rng(9)
    return np.asarray(np.abs(random.normal(0, 1, (120, 1, DEPTH))) + 6 * (np.arange(DEPTH) > 30), np.float32)


@pytest.fixture(scope="module")
def served(head: Head, source: SourceFeatures, junk: np.ndarray) -> Served:
    groups = [str(label) for label in source.labels]
    bank = fit_bank(source.pooled, groups, clouds(5, 200)[0], junk[:, 0], directions=20)
    held_out = clouds(6, 200)[0]
    refused_from = float(np.quantile(bank.refusal_logits(held_out), 0.99))
    gate = Gate(bank, usual_limits(bank, held_out, ["old"] * 200, 0.99), 1.2, refused_from)
    return Served(head, gate, 0.8, 0.8, source)


def local_cells(features: np.ndarray, labels: np.ndarray, groups: list[str] | None = None) -> LocalCells:
    views = features[:, None]
    return LocalCells(views, views, labels.astype(np.int64), groups or [str(index) for index in range(len(labels))])


def test_the_correction_adds_exactly_what_it_should(head: Head) -> None:
    random = np.random.default_rng(2)
    linear, constant = random.normal(0, 0.3, (DEPTH, CLASSES)), random.normal(0, 1, CLASSES)
    pooled = clouds(3, 50)[0]
    corrected = with_correction(head, linear, constant)
    assert np.allclose(corrected.logits(pooled), head.logits(pooled) + pooled @ linear + constant, atol=1e-4)


def test_the_heat_map_follows_the_corrected_head(head: Head) -> None:
    random = np.random.default_rng(2)
    linear, constant = random.normal(0, 0.3, (DEPTH, CLASSES)), random.normal(0, 1, CLASSES)
    feature_map = np.asarray(random.uniform(0, 6, (5, 5, DEPTH)), np.float32)
    corrected = with_correction(head, linear, constant)
    for label in range(CLASSES):
        step = np.eye(DEPTH, dtype=np.float32) * np.float32(1e-2)
        pooled = feature_map.mean(axis=(0, 1))
        slope = (corrected.logits(pooled + step) - corrected.logits(pooled - step))[:, label] / 2e-2
        heat = np.maximum(feature_map @ slope / 25, 0)
        assert np.allclose(grad_cam(feature_map, corrected, label), heat, atol=0.02)


def test_a_moved_microscope_is_learnt(served: Served, junk: np.ndarray) -> None:
    features, labels = clouds(11, 60, moved=2.5)
    adaptation = adapt(served, local_cells(features, labels), junk)
    assert adaptation.kept.is_corrected
    assert adaptation.hits_before.mean() < 0.7
    assert adaptation.hits[CORRECTED].mean() > 0.9
    fresh, truth = clouds(12, 200, moved=2.5)
    assert (adaptation.head.logits(fresh).argmax(axis=1) == truth).mean() > 0.9
    assert adaptation.familiar["before"] < 0.5 < adaptation.familiar["after"]
    assert (adaptation.gate.scores(fresh) <= 1).mean() > 0.8
    assert adaptation.junk_refused["after"] > 0.95


def test_a_known_microscope_keeps_its_head(served: Served, head: Head, junk: np.ndarray) -> None:
    features, _ = clouds(13, 40)
    adaptation = adapt(served, local_cells(features, head.logits(features).argmax(axis=1)), junk)
    assert not adaptation.kept.is_corrected
    assert adaptation.head is head


def test_meaningless_labels_give_no_confident_head(served: Served, junk: np.ndarray) -> None:
    features, labels = clouds(14, 60, moved=2.5)
    adaptation = adapt(served, local_cells(features, np.random.default_rng(0).permutation(labels)), junk)
    fresh = clouds(18, 200, moved=2.5)[0]
    confidence = softmax(adaptation.head.logits(fresh) / np.float32(adaptation.temperature)).max(axis=1)
    assert adaptation.hits_kept.mean() < 0.5
    assert (confidence >= adaptation.least_confidence).mean() < 0.2


def seen_from_all_sides(seed: int, count: int, noise: float) -> tuple[LocalCells, np.ndarray]:
    """Cells whose eight views differ by noise that has nothing to do with their type."""
    features, labels = clouds(seed, count, moved=2.5)
    pooled = features[:, None] + np.random.default_rng(seed).normal(0, noise, (count, 8, DEPTH))
    views = np.maximum(pooled, 0).astype(np.float32)
    return LocalCells(views, views, labels.astype(np.int64), list(map(str, range(count)))), labels


def test_eight_views_are_taken_where_one_view_misleads(served: Served, junk: np.ndarray) -> None:
    cells, _ = seen_from_all_sides(21, 60, noise=1.2)
    adaptation = adapt(served, cells, junk)
    assert adaptation.kept == Way(is_corrected=True, views=8)
    assert adaptation.hits_kept.mean() > adaptation.hits[CORRECTED].mean() > adaptation.hits_before.mean()
    fresh, truth = seen_from_all_sides(22, 400, noise=1.2)
    right = [
        (adaptation.head.logits(as_served(fresh.pooled, views)).argmax(axis=1) == truth).mean() for views in (1, 8)
    ]
    assert right[1] > right[0] + 0.05
    assert (adaptation.gate.scores(as_served(fresh.pooled, 8)) <= 1).mean() > 0.8


def test_one_view_is_kept_where_eight_do_no_better(served: Served, junk: np.ndarray) -> None:
    cells, _ = seen_from_all_sides(23, 60, noise=0.0)
    adaptation = adapt(served, cells, junk)
    assert adaptation.kept == CORRECTED
    assert adaptation.hits[Way(is_corrected=True, views=8)].mean() == adaptation.hits[CORRECTED].mean()


@pytest.mark.parametrize("views", [1, 8])
def test_the_number_of_views_can_be_decided_beforehand(served: Served, junk: np.ndarray, views: int) -> None:
    for noise in (0.0, 1.2):
        assert adapt(served, seen_from_all_sides(24, 40, noise)[0], junk, views).kept.views == views


def test_a_type_without_labels_is_not_forgotten(head: Head, source: SourceFeatures) -> None:
    features, labels = clouds(15, 60, classes=3, moved=2.5)
    cells = local_cells(features, labels)
    known, truth = clouds(16, 200)
    unlabelled = truth == 3
    for features_of_training in (source, None):
        corrected = corrected_head(head, cells, features_of_training, directions_for(cells, features_of_training))
        assert (corrected.logits(features).argmax(axis=1) == labels).mean() > 0.9
        assert (corrected.logits(known[unlabelled]).argmax(axis=1) == 3).mean() > 0.8


def test_copies_of_a_cell_are_never_on_both_sides_of_a_fold(served: Served, junk: np.ndarray) -> None:
    """Noise with random labels can be named right in cross-validation only by a head that has seen the copy."""
    random = np.random.default_rng(17)
    features = np.repeat(random.uniform(0, 6, (30, DEPTH)), 2, axis=0).astype(np.float32)
    labels = np.repeat(random.integers(0, CLASSES, 30), 2)
    together = adapt(served, local_cells(features, labels, [str(index // 2) for index in range(60)]), junk)
    apart = adapt(served, local_cells(features, labels), junk)
    assert together.hits[CORRECTED].mean() < 0.5
    assert apart.hits[CORRECTED].mean() > 0.7


def test_local_thresholds_cover_what_they_promise() -> None:
    random = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        truth, labels = random.beta(6, 1, 240), random.integers(0, 2, 240)
        probabilities = np.where(np.eye(2)[labels] > 0, truth[:, None], 1 - truth[:, None])
        thresholds = np.array(local_thresholds(probabilities[:40], labels[:40]))
        covered.append(float((truth[40:] >= thresholds[labels[40:]]).mean()))
    assert np.mean(covered) == pytest.approx(1 - 2 / 41, abs=0.006)


def test_a_class_with_cells_enough_has_its_own_threshold() -> None:
    labels = np.repeat([0, 1], [60, 5])
    sure = np.where(labels == 0, 0.9, 0.3)
    first, second = local_thresholds(np.stack([np.where(labels == 0, sure, 1 - sure), 1 - sure], axis=1), labels)
    assert first == pytest.approx(0.9)
    assert second < 0.9


def test_turned_and_recompressed_copies_share_a_group() -> None:
    cells = [draw_cell(150, seed) for seed in (1, 2, 3)]
    squeezed = decode(encoded(cells[1], "JPEG", quality=70))
    pictures = [*cells, np.rot90(cells[0]), squeezed]
    first, second, third, of_first, of_second = content_groups(np.stack([turned(picture) for picture in pictures]))
    assert first == of_first
    assert second == of_second
    assert len({first, second, third}) == 3


def test_training_cells_are_drawn_evenly_and_survive_being_saved(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pooled = np.maximum(random.normal(0, 1, (900, 1280)), 0).astype(np.float32)
    labels = np.repeat([0, 1, 2], [500, 370, 30])
    sources = ["a"] * 480 + ["b"] * 20 + ["a"] * 200 + ["b"] * 170 + ["a"] * 30
    chosen = choose(pooled, labels, sources, per_class=120)
    picked = list(zip(chosen.labels.tolist(), chosen.sources, strict=True))
    counts = {pair: picked.count(pair) for pair in set(picked)}
    assert counts == {(0, "a"): 100, (0, "b"): 20, (1, "a"): 60, (1, "b"): 60, (2, "a"): 30}
    save(chosen, tmp_path)
    read = load(tmp_path)
    assert read is not None
    assert np.allclose(read.pooled, chosen.pooled, rtol=1e-3)
    assert (read.labels == chosen.labels).all()
    assert read.sources == chosen.sources
    assert load(tmp_path / "elsewhere") is None


def test_a_draw_has_the_shares_of_the_set() -> None:
    labels = np.repeat([0, 1, 2, 3], [176, 70, 53, 1])
    drawn = stratified_draw(labels, 100, seed=1)
    assert len(set(drawn.tolist())) == 100
    assert np.abs(np.bincount(labels[drawn], minlength=4) - np.array([58.7, 23.3, 17.7, 0.3])).max() < 1
    assert not np.array_equal(drawn, stratified_draw(labels, 100, seed=2))


# Whole bundles, from drawn cells.


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


# Real cells of another microscope.


@pytest.fixture(scope="module")
def opened(bundle: Path) -> Opened:
    return open_bundle(bundle)


@pytest.fixture(scope="module")
def jtsc(data: Path, opened: Opened) -> LocalCells:
    return adapting.see(opened, read_pictures(data / "jtsc", opened.card.labels))


@pytest.fixture(scope="module")
def on_jtsc(jtsc: LocalCells, opened: Opened) -> dict[str, Any]:
    """The figures of two draws, whole procedure."""
    figures = drawn_again(opened, jtsc, labelled=100, draws=2)
    print(json.dumps(figures))
    return figures


def test_another_microscope_is_named_better_after_adapting(on_jtsc: dict[str, Any]) -> None:
    assert on_jtsc["adapted_common"] > on_jtsc["zero_shot_common"]
    for draw in on_jtsc["per_draw"]:
        assert draw["familiar"] >= 0.9
        assert draw["junk_refused"] >= 0.9


def test_a_hundred_labels_halve_the_errors_on_another_microscope(jtsc: LocalCells, opened: Opened) -> None:
    """The fit alone, over 25 draws: one draw of 199 cells to test on is off by 0.02, their mean hardly."""
    head, source = opened.served.head, opened.served.source
    directions = directions_for(jtsc, source)
    names, sizes = np.unique(jtsc.labels, return_counts=True)
    is_common = np.isin(jtsc.labels, names[sizes >= COMMON])
    before: list[float] = []
    after: list[float] = []
    for seed in range(25):
        drawn = stratified_draw(jtsc.labels, 100, seed)
        seen_groups = {jtsc.groups[index] for index in drawn}
        rest = np.flatnonzero(is_common & ~np.isin(jtsc.groups, list(seen_groups)))
        corrected = corrected_head(head, jtsc.chosen(drawn), source, directions)
        for own, views, errors in ((head, 1, before), (corrected, 8, after)):
            logits = own.logits(as_served(jtsc.pooled[rest], views))
            errors.append(float((logits.argmax(axis=1) != jtsc.labels[rest]).mean()))
    print(f"errors {np.mean(before):.4f} -> {np.mean(after):.4f}; the first five {np.mean(after[:5]):.4f}")
    assert np.mean(after) <= 0.5 * np.mean(before)
    # Measured 0.1092 in the draws that `adapt_trial` makes by default, where half of the error is 0.1097.
    assert np.mean(after[:5]) == pytest.approx(0.109, abs=0.005)


def test_an_adapted_gate_refuses_nearly_all_drawn_junk(on_jtsc: dict[str, Any]) -> None:
    assert min(draw["junk_refused"] for draw in on_jtsc["per_draw"]) >= 0.95
