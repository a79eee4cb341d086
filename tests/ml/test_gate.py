import csv
import gzip
import hashlib
import inspect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml import junk, junk_trial
from ml.calibrate import ACCEPTED_IN_DOMAIN, Restained, SeenCells, calibrate
from ml.errors import UnusableData
from ml.gate import FeatureBank, Gate, fit_bank, fit_logistic, read_bank, save_bank, usual_limits
from ml.images import decode
from ml.locate import find_leukocytes
from ml.predictor import LiteRTPredictor

BASIS = np.linalg.qr(np.random.default_rng(0).normal(0, 1, (60, 60)))[0]


def cells(seed: int, count: int = 400) -> tuple[np.ndarray, list[str]]:
    """Features of two groups, each a cloud about its own centre in 20 of 60 directions."""
    random = np.random.default_rng(seed)
    groups = random.integers(0, 2, count)
    inside = random.normal(0, 1, (count, 20))
    inside[:, 0] += 12 * groups
    inside[:, 1] += 12 * (1 - groups)
    features = np.hstack([inside, random.normal(0, 0.1, (count, 40))]) @ BASIS
    return features.astype(np.float32), [f"group {group}" for group in groups]


def no_cells(seed: int, count: int = 200) -> np.ndarray:
    random = np.random.default_rng(seed)
    inside = random.normal(0, 1, (count, 20))
    inside[:, 2] += 9
    return np.asarray(np.hstack([inside, random.normal(0, 0.1, (count, 40))]) @ BASIS, np.float32)


@pytest.fixture(scope="module")
def bank() -> FeatureBank:
    features, groups = cells(1)
    return fit_bank(features, groups, cells(5)[0], no_cells(6), directions=20)


@pytest.fixture(scope="module")
def gate(bank: FeatureBank) -> Gate:
    held_out = cells(2)[0]
    limit = float(np.quantile(bank.refusal_logits(held_out), 0.99))
    return Gate(bank, usual_limits(bank, held_out, ["one"] * 400, 0.99), far=1.5, refused_from=limit)


def test_familiar_cells_pass(gate: Gate) -> None:
    assert (gate.scores(cells(3)[0]) <= 1).mean() > 0.9


def test_what_is_no_cell_scores_beyond_far(gate: Gate) -> None:
    assert (gate.scores(no_cells(7)) > gate.far).mean() > 0.99


def test_other_directions_and_faint_features_are_unfamiliar(gate: Gate) -> None:
    elsewhere = np.random.default_rng(4).normal(0, 3, (200, 60)).astype(np.float32)
    assert (gate.novelty(elsewhere) > 1).all()
    assert (gate.novelty(cells(3)[0] * np.float32(0.1)) > 1).all()
    assert np.isfinite(gate.scores(np.zeros((1, 60), np.float32))).all()


def test_a_point_between_two_groups_is_unfamiliar(gate: Gate) -> None:
    features, groups = cells(1)
    first = np.array([group == "group 0" for group in groups])
    between = np.asarray((features[first].mean(axis=0) + features[~first].mean(axis=0)) / 2, np.float32)
    assert gate.novelty(between[None])[0] > 1


def test_a_channel_that_hardly_ever_answers_decides_nothing() -> None:
    features, groups = cells(1)
    silent = np.hstack([features, np.zeros((len(features), 1), np.float32)])
    bank = fit_bank(
        silent, groups, silent[:100], np.hstack([no_cells(6), np.zeros((200, 1), np.float32)]), directions=20
    )
    gate = Gate(bank, usual_limits(bank, silent, ["one"] * 400, 0.99), far=1.5, refused_from=math.inf)
    whisper = np.hstack([cells(3)[0], np.full((400, 1), 0.001, np.float32)])
    assert (gate.novelty(whisper) <= 1).mean() > 0.9


def test_a_microscope_that_was_adapted_to_is_familiar_and_others_are_not(gate: Gate) -> None:
    random = np.random.default_rng(8)
    moved, elsewhere = random.normal(0, 2, (2, 60)).astype(np.float32)
    there = cells(3)[0] + moved
    adapted = replace(gate, bank=replace(gate.bank, shift=gate.bank.placed(there).mean(axis=0)))
    assert (gate.novelty(there) > 1).mean() > 0.9
    assert (adapted.novelty(cells(9)[0] + moved) <= 1).mean() > 0.7
    assert (adapted.novelty(cells(9)[0]) <= 1).mean() > 0.9
    assert (adapted.novelty(cells(9)[0] + elsewhere) > 1).mean() > 0.9


def test_banks_without_textures_judge_by_pooled_features_on_the_unit_sphere(gate: Gate, tmp_path: Path) -> None:
    old = {name: value for name, value in gate.bank.__dict__.items() if name not in ("spread", "shift")}
    np.savez(tmp_path / "old.npz", allow_pickle=False, **old)
    bank = read_bank(tmp_path / "old.npz")
    pooled = cells(3)[0]
    assert np.allclose(bank.placed(pooled), bank.placed(pooled * 7), atol=1e-6)
    limits = usual_limits(bank, pooled, ["one"] * 400, 0.99)
    assert limits.strength == pytest.approx(np.quantile(np.linalg.norm(pooled, axis=1), 0.01 / 3), rel=1e-3)
    assert (Gate(bank, limits, 1.5, math.inf).novelty(pooled * np.float32(0.1)) > 1).all()
    texture = np.zeros((400, 5), np.float32)
    assert bank.judged(pooled, texture) is pooled
    assert gate.bank.judged(pooled, texture) is texture


def test_no_channel_counts_for_more_than_eight_spreads(bank: FeatureBank) -> None:
    placed = bank.placed((bank.mean + np.outer([1000, -1000, 2], bank.spread)).astype(np.float32))
    assert np.allclose(placed, np.outer([8, -8, 2], np.ones(60)), atol=1e-2)


def test_calibrated_gate_keeps_nearly_all_cells_that_were_stained_anew() -> None:
    def seen(seed: int, moved: float = 0.0) -> SeenCells:
        features, groups = cells(seed)
        labels = np.array([int(group[-1]) for group in groups], np.int64)
        logits = np.where(np.arange(2) == labels[:, None], 4.0, 0.0).astype(np.float32)
        return SeenCells(features, logits, features + np.float32(moved), labels, ["one"] * len(labels))

    restained = Restained(seen(11, 0.3).texture, seen(12, 0.3).texture)
    gate = calibrate(seen(1), seen(2), restained, no_cells(6)).gate
    assert (gate.bank.refusal_logits(restained.validation) <= gate.refused_from).mean() >= 0.975
    assert (gate.novelty(restained.validation) <= gate.far).mean() >= 0.99
    assert (gate.novelty(seen(2).texture) <= 1).mean() >= ACCEPTED_IN_DOMAIN
    assert (gate.scores(no_cells(7)) > gate.far).mean() > 0.9


def test_network_without_textures_is_not_calibrated() -> None:
    features, _ = cells(1)
    none = np.zeros((400, 0), np.float32)
    seen = SeenCells(features, np.zeros((400, 2), np.float32), none, np.zeros(400, np.int64), ["one"] * 400)
    with pytest.raises(UnusableData, match="older format"):
        calibrate(seen, seen, Restained(none, none), none)


def test_a_bank_is_read_as_it_was_written(gate: Gate, tmp_path: Path) -> None:
    save_bank(gate.bank, tmp_path / "gate.npz")
    assert all(
        np.array_equal(a, getattr(gate.bank, name)) for name, a in read_bank(tmp_path / "gate.npz").__dict__.items()
    )


def test_every_source_keeps_its_share(bank: FeatureBank) -> None:
    both = np.concatenate([cells(2)[0], cells(3)[0] * 0.7])
    limits = usual_limits(bank, both, ["strong"] * 400 + ["faint"] * 400, 0.99)
    accepted = Gate(bank, limits, far=1.5, refused_from=math.inf).novelty(both) <= 1
    assert accepted[:400].mean() >= 0.99
    assert accepted[400:].mean() >= 0.985


def test_logistic_regression_separates_two_clouds() -> None:
    random = np.random.default_rng(0)
    below, above = random.normal(-2, 1, (300, 3)), random.normal(2, 1, (60, 3))
    weights = fit_logistic(below, above)
    assert ((below @ weights[:-1] + weights[-1]) < 0).mean() > 0.97
    assert ((above @ weights[:-1] + weights[-1]) > 0).mean() > 0.97


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen pictures of each kind of junk are enough."""
    monkeypatch.setattr(junk_trial, "PER_KIND", 12)


@pytest.fixture(scope="module")
def junk_files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    """The set with a dozen pictures of each kind, drawn once: (kind, file)."""
    with pytest.MonkeyPatch.context() as only:
        only.setattr(junk_trial, "PER_KIND", 12)
        return list(junk_trial.junk_set(tmp_path_factory.mktemp("nothing")))


def test_junk_for_testing_is_the_same_every_time(
    few: None, junk_files: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    assert junk_files == list(junk_trial.junk_set(tmp_path))
    assert set(Counter(kind for kind, _ in junk_files).values()) == {junk_trial.PER_KIND}
    assert len({hashlib.sha256(content).hexdigest() for _, content in junk_files}) > 0.9 * len(junk_files)


def test_junk_for_testing_is_drawn_by_other_code_than_junk_for_fitting() -> None:
    used = [value for value in vars(junk_trial).values() if inspect.isfunction(value) or inspect.ismodule(value)]
    assert len(used) > len(junk_trial._KINDS)
    assert not any(inspect.getmodule(value) is junk for value in used)


def test_drawn_junk_for_fitting_has_every_size_and_differs() -> None:
    pictures = junk.drawn_junk(40, 96)
    assert {picture.shape for picture in pictures} == {(96, 96, 3)}
    assert {picture.dtype for picture in pictures} == {np.dtype(np.uint8)}
    assert len({picture.tobytes() for picture in pictures}) == 40
    assert all(np.array_equal(a, b) for a, b in zip(pictures, junk.drawn_junk(40, 96), strict=True))


def test_real_red_cells_for_testing_hold_no_leukocyte(data: Path) -> None:
    parts = list(junk_trial.fields_without_leukocyte(data, 12))
    assert len(parts) == 12
    assert all(min(part.shape[:2]) >= 240 for part in parts)
    strong = [part for part in parts if any(cell.diameter > 60 for cell in find_leukocytes(part))]
    assert len(strong) <= 1


def test_shipped_model_refuses_most_junk(
    junk_files: list[tuple[str, bytes]], predictor: LiteRTPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(junk_trial, "junk_set", lambda _data: iter(junk_files))
    trial = junk_trial.junk_trial(predictor, tmp_path)
    assert trial["n"] == 12 * len(trial["kinds"])
    assert trial["refused_low"] < trial["refused"] <= trial["refused_high"] + 1e-9
    assert trial["refused"] == pytest.approx(np.mean([kind["refused"] for kind in trial["kinds"].values()]))
    assert trial["refused"] >= 0.98
    assert trial["labelled"] <= 0.01


def test_shipped_model_refuses_all_but_one_in_a_hundred(predictor: LiteRTPredictor, data: Path) -> None:
    trial = junk_trial.junk_trial(predictor, data)
    assert trial["n"] >= 473
    assert trial["refused"] >= 0.99
    assert trial["labelled"] <= 0.01


def outcomes(predictor: LiteRTPredictor, paths: Sequence[Path]) -> Counter[str | None]:
    """How often each reason was given for no class; None counts what has one."""
    prepared = [predictor.prepare(path.read_bytes()) for path in paths]
    return Counter(prediction.reason_code for prediction in predictor.predict(prepared))


def test_shipped_model_knows_an_unfamiliar_microscope_and_still_sees_its_cells(
    predictor: LiteRTPredictor, data: Path
) -> None:
    found = outcomes(predictor, sorted((data / "jtsc").glob("*/*"))[::4])
    assert found.total() == 75
    assert found["unfamiliar_microscope"] >= 0.8 * 75
    assert found["not_a_cell"] <= 3


@pytest.mark.parametrize("source", ["pbc", "kaggle"])
def test_shipped_model_takes_held_out_cells_of_its_microscopes_for_familiar(
    predictor: LiteRTPredictor, data: Path, bundle: Path, source: str
) -> None:
    with gzip.open(bundle / "manifest.csv.gz", "rt") as rows:
        own = [row["path"] for row in csv.DictReader(rows) if row["source"] == source and row["split"] != "train"]
    found = outcomes(predictor, [data / path for path in own[:: len(own) // 150]])
    assert found.total() >= 150
    assert found["unfamiliar_microscope"] + found["not_a_cell"] <= 0.03 * found.total()


def test_files_of_the_set_are_pictures(junk_files: list[tuple[str, bytes]]) -> None:
    shapes = {decode(content).shape for _, content in junk_files}
    assert shapes == {(224, 224, 3), (363, 360, 3), (240, 320, 3), (480, 640, 3)}
