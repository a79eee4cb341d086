import numpy as np
import pytest

from ml.conformal import binomial_cdf, class_thresholds, conformal_sets, threshold_rank


def test_binomial_cdf_is_right() -> None:
    assert binomial_cdf(0, 10, 0.1) == pytest.approx(0.9**10)
    assert binomial_cdf(10, 10, 0.3) == pytest.approx(1)
    assert binomial_cdf(-1, 10, 0.3) == 0
    assert binomial_cdf(5, 10, 0.5) == pytest.approx(638 / 1024)


def test_rank_grows_towards_the_wanted_share() -> None:
    ranks = [threshold_rank(n) for n in (20, 50, 100, 400, 2000)]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0
    assert 0.04 < ranks[-1] / 2000 < 0.05


def test_coverage_of_every_class_holds_on_cells_not_used_for_fitting() -> None:
    random = np.random.default_rng(1)
    covered = []
    for _ in range(40):
        labels = random.integers(0, 3, 900)
        logits = random.normal(0, 1, (900, 3)) + 1.5 * np.eye(3)[labels]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        thresholds = class_thresholds(probabilities[:450], labels[:450], 3)
        sets = conformal_sets(probabilities[450:], thresholds)
        held = labels[450:]
        covered.append([np.mean([c in s for s, c in zip(sets, held, strict=True) if c == k]) for k in range(3)])
    assert np.mean(covered) >= 0.95


def test_a_set_is_never_empty_and_is_ranked() -> None:
    sets = conformal_sets(np.array([[0.4, 0.35, 0.25], [0.1, 0.2, 0.7]]), [0.9, 0.2, 0.9])
    assert sets == [[0, 1], [2, 1]]


def test_a_class_with_few_cells_is_in_every_set() -> None:
    probabilities = np.full((10, 2), 0.5)
    assert class_thresholds(probabilities, np.zeros(10, int), 2) == [0.0, 0.0]


def test_the_promise_holds_for_the_harder_of_two_sources() -> None:
    random = np.random.default_rng(2)
    right = np.concatenate([random.uniform(0.9, 1, 900), random.uniform(0.3, 1, 100)])
    probabilities = np.stack([right, 1 - right], axis=1)
    labels, sources = np.zeros(1000, int), ["easy"] * 900 + ["hard"] * 100
    together, apart = (class_thresholds(probabilities, labels, 2, given)[0] for given in (None, sources))
    assert (right[900:] >= together).mean() < 0.9
    assert (right[900:] >= apart).mean() >= 0.95
    assert apart == class_thresholds(probabilities[900:], labels[900:], 2)[0]
