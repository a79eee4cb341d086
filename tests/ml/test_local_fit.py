"""The fit of a head and a gate to a laboratory's own cells: in a small world, and on another microscope's cells."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.adapt import Opened, open_bundle, see
from ml.adapt_trial import COMMON, drawn_again, stratified_draw
from ml.gate import Gate, fit_bank, usual_limits
from ml.head_correction import LocalCells, corrected_head, directions_for, with_correction
from ml.heat_map import Head, grad_cam
from ml.images import decode
from ml.local_cells import content_groups, read_pictures
from ml.local_fit import Served, Way, adapt, best_way, gate_with, local_thresholds
from ml.predictor import softmax
from ml.source_features import SourceFeatures, choose, load, save
from ml.views import as_served, turned

from .smears import draw_cell, encoded

CLASSES, DEPTH = 4, 40
CORRECTED = Way(is_corrected=True, views=1)


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
    return LocalCells(
        views, views[:, :0], views, labels.astype(np.int64), groups or [str(index) for index in range(len(labels))]
    )


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
    return LocalCells(views, views[:, :0], views, labels.astype(np.int64), list(map(str, range(count)))), labels


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


def test_eight_views_are_taken_where_one_is_better_by_chance_alone() -> None:
    """One cell more of 100 is chance where the two differ on eleven; six more where they differ on six are not."""
    old, one, eight = Way(is_corrected=False, views=1), CORRECTED, Way(is_corrected=True, views=8)
    right = np.ones(100)
    often = right.copy()
    often[:6] = 0
    other = right.copy()
    other[50:55] = 0
    assert best_way({old: right * 0.5, one: other, eight: often}, (old, one, eight)) == eight
    assert best_way({old: right * 0.5, one: right, eight: often}, (old, one, eight)) == one
    assert best_way({old: right * 0.5, one: right, eight: right}, (old, one, eight)) == one
    assert best_way({old: right, one: other, eight: often}, (old, one, eight)) == old
    assert best_way({old: right * 0.5, one: other, eight: often}, (old, one)) == one


@pytest.mark.parametrize("views", [1, 8])
def test_the_number_of_views_can_be_decided_beforehand(served: Served, junk: np.ndarray, views: int) -> None:
    for noise in (0.0, 1.2):
        assert adapt(served, seen_from_all_sides(24, 40, noise)[0], junk, views).kept.views == views


def test_a_gate_of_eight_views_has_the_limits_of_what_is_served(served: Served, junk: np.ndarray) -> None:
    """Single views lie wider than their means: limits fitted to them would let in what is not familiar."""
    cells, labels = seen_from_all_sides(25, 60, noise=1.2)
    as_it_serves = local_cells(as_served(cells.pooled, 8), labels)
    served_junk = as_served(junk, 8)
    wanted = gate_with(served.gate, as_it_serves, served_junk, 1)
    of_single_views = gate_with(served.gate, cells, served_junk, 1)
    assert of_single_views.limits != wanted.limits
    assert of_single_views.refused_from != wanted.refused_from

    for gate in (adapt(served, cells, junk, 8).gate, gate_with(served.gate, cells, served_junk, 8)):
        assert gate.limits == wanted.limits
        assert gate.refused_from == wanted.refused_from
        assert np.array_equal(gate.bank.shift, wanted.bank.shift)


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


# Real cells of another microscope.


@pytest.fixture(scope="module")
def opened(bundle: Path) -> Opened:
    return open_bundle(bundle)


@pytest.fixture(scope="module")
def jtsc(data: Path, opened: Opened) -> LocalCells:
    return see(opened, read_pictures(data / "jtsc", opened.card.labels))


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


def test_a_hundred_labels_take_half_of_the_errors_on_another_microscope(jtsc: LocalCells, opened: Opened) -> None:
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
    assert np.mean(after[:5]) <= 0.5 * np.mean(before[:5])


def test_an_adapted_gate_refuses_nearly_all_drawn_junk(on_jtsc: dict[str, Any]) -> None:
    assert min(draw["junk_refused"] for draw in on_jtsc["per_draw"]) >= 0.95
