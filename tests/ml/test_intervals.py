import numpy as np
import pytest

from ml.intervals import clustered, wilson


def test_wilson_matches_published_values() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_clusters_widen_the_interval() -> None:
    right = np.repeat(np.random.default_rng(0).random(20) < 0.8, 30)
    clusters = [str(i // 30) for i in range(600)]
    low, high = clustered(right, clusters)
    plain_low, plain_high = wilson(int(right.sum()), 600)
    assert low < right.mean() < high
    assert high - low > 2 * (plain_high - plain_low)


def test_clusters_that_are_all_right_still_leave_doubt() -> None:
    clusters = [str(i // 100) for i in range(500)]
    assert clustered(np.ones(500, bool), clusters) == wilson(5, 5)
    assert clustered(np.zeros(500, bool), clusters) == wilson(0, 5)


def test_one_cluster_tells_nothing_of_others() -> None:
    assert clustered(np.arange(10) < 7, ["slide"] * 10) == (0.0, 1.0)
    assert clustered(np.zeros(0, bool), []) == (0.0, 1.0)
