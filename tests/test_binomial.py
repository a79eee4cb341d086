"""Exact limits of shares, how many more cells narrow them, and the limits of a difference."""

import itertools
import math
import time
from fractions import Fraction

import pytest

from classifier.binomial import MOST_CELLS, cells_needed, limits, limits_of_difference

# k, n, and the limits in percent to one decimal, as tables of exact limits print them.
TABLE = [
    (0, 100, 0.0, 3.6),
    (1, 100, 0.0, 5.4),
    (2, 100, 0.2, 7.0),
    (5, 100, 1.6, 11.3),
    (10, 100, 4.9, 17.6),
    (20, 100, 12.7, 29.2),
    (50, 100, 39.8, 60.2),
    (60, 100, 49.7, 69.7),
    (100, 100, 96.4, 100.0),
    (0, 200, 0.0, 1.8),
    (2, 200, 0.1, 3.6),
    (10, 200, 2.4, 9.0),
    (20, 200, 6.2, 15.0),
    (120, 200, 52.9, 66.8),
    (240, 400, 55.0, 64.8),
    (0, 500, 0.0, 0.7),
    (5, 500, 0.3, 2.3),
    (25, 500, 3.3, 7.3),
    (250, 500, 45.5, 54.5),
    (0, 1000, 0.0, 0.4),
    (10, 1000, 0.5, 1.8),
    (50, 1000, 3.7, 6.5),
    (500, 1000, 46.9, 53.1),
]


@pytest.mark.parametrize(("k", "n", "low", "high"), TABLE)
def test_limits_are_those_of_the_printed_tables(k: int, n: int, low: float, high: float) -> None:
    found_low, found_high = limits(k, n)

    assert (round(100 * found_low, 1), round(100 * found_high, 1)) == (low, high)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 100, 0, 4),
        (1, 100, 0, 6),
        (5, 100, 1, 12),
        (10, 100, 4, 18),
        (20, 100, 12, 30),
        (50, 100, 39, 61),
        (20, 200, 6, 16),
        (50, 500, 7, 13),
        (100, 1000, 8, 13),
    ],
)
def test_limits_in_whole_percent_are_those_that_haematology_knows(k: int, n: int, low: int, high: int) -> None:
    """Rümke's table (in Koepke, Differential leukocyte counting, 1979), which rounds outwards."""
    found_low, found_high = limits(k, n)

    assert (math.floor(100 * found_low), math.ceil(100 * found_high)) == (low, high)


def tail(k: int, n: int, share: Fraction) -> Fraction:
    """The chance of k or more out of n, without any rounding."""
    return sum((math.comb(n, j) * share**j * (1 - share) ** (n - j) for j in range(k, n + 1)), Fraction(0))


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 2), (3, 7), (6, 7), (1, 60), (30, 60), (59, 60), (60, 60), (12, 150)])
def test_limits_leave_two_and_a_half_percent_in_either_tail(k: int, n: int) -> None:
    low, high = (Fraction(limit) for limit in limits(k, n))

    assert float(tail(k, n, low)) == pytest.approx(0.025, rel=1e-9)
    if k < n:
        assert float(1 - tail(k + 1, n, high)) == pytest.approx(0.025, rel=1e-9)


def test_nothing_counted_tells_nothing() -> None:
    assert limits(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 10), (11, 10), (1, 0)])
def test_what_is_not_a_count_is_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a count"):
        limits(k, n)


@pytest.mark.parametrize("n", [1, 17, 100, 999, 25_000, 100_000])
def test_limits_enclose_the_share_mirror_each_other_and_rise_with_the_count(n: int) -> None:
    counts = sorted({0, 1, n // 7, n // 3, n // 2, n - 1, n})
    found = [limits(k, n) for k in counts]

    for k, (low, high) in zip(counts, found, strict=True):
        assert 0 <= low <= k / n <= high <= 1
        assert limits(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert [low for low, _ in found] == sorted(low for low, _ in found)


def test_limits_of_a_hundred_thousand_cells_take_about_a_millisecond() -> None:
    """The bound is loose: the machine that runs this has other things to do."""
    counts = [1, 50, 5_001, 25_001, 50_001, 75_001, 99_001]
    limits.cache_clear()
    started = time.process_time()
    for k in counts:
        limits(k, 100_000)

    assert (time.process_time() - started) / len(counts) < 0.004


def test_limits_that_are_asked_for_again_are_remembered() -> None:
    limits.cache_clear()
    limits(7, 211)
    limits(7, 211)

    assert (limits.cache_info().misses, limits.cache_info().hits) == (1, 1)


# --- How many more cells -----------------------------------------------------------------------------------------


def width(k: int, n: int) -> float:
    low, high = limits(k, n)
    return 100 * (high - low)


def expected_width(share: Fraction, n: int) -> float:
    """The width after n cells of that share; between whole counts of the type, in proportion."""
    whole = math.floor(share * n)
    rest = float(share * n - whole)
    return width(whole, n) if rest == 0 else (1 - rest) * width(whole, n) + rest * width(whole + 1, n)


@pytest.mark.parametrize(("k", "n", "wanted"), [(60, 100, 15), (5, 100, 5), (0, 100, 2), (3, 100, 5), (1, 37, 8)])
def test_cells_needed_is_the_smallest_number_that_is_enough(k: int, n: int, wanted: float) -> None:
    more = cells_needed(k, n, wanted)
    widths = [expected_width(Fraction(k, n), total) for total in range(n, n + (more or 0) + 1)]

    assert more
    assert widths[-1] <= wanted
    assert all(each > wanted for each in widths[:-1])


@pytest.mark.parametrize("share", [Fraction(0), Fraction(1, 100), Fraction(3, 50), Fraction(1, 2), Fraction(1)])
def test_expected_width_falls_with_every_cell(share: Fraction) -> None:
    widths = [expected_width(share, total) for total in range(20, 400)]

    assert all(later < earlier for earlier, later in itertools.pairwise(widths))


def test_no_more_cells_are_needed_where_the_limits_are_close_enough() -> None:
    assert cells_needed(5, 100, 10) == 0


@pytest.mark.parametrize(("k", "n", "wanted"), [(50, 100, 0.5), (0, 0, 10), (6_000, 12_000, 1)])
def test_cells_that_nobody_would_count_are_not_asked_for(k: int, n: int, wanted: float) -> None:
    assert cells_needed(k, n, wanted) is None


def test_cells_needed_never_exceed_the_cap() -> None:
    for wanted in (1.97, 2, 3, 5, 10):
        more = cells_needed(50, 100, wanted)
        assert more is not None
        assert 100 + more <= MOST_CELLS


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        cells_needed(5, 100, 0)


# --- Differences -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "other_k", "other_n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 1998; 17: 873-890, table II, method 10.
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (6, 7, 2, 7, 0.0582, 0.8062),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (0, 10, 0, 20, -0.1611, 0.2775),
        (0, 10, 0, 10, -0.2775, 0.2775),
        (10, 10, 0, 20, 0.6791, 1.0000),
        (10, 10, 0, 10, 0.6075, 1.0000),
    ],
)
def test_limits_of_a_difference_are_the_published_ones(
    k: int, n: int, other_k: int, other_n: int, low: float, high: float
) -> None:
    found = limits_of_difference(k, n, other_k, other_n)

    assert [round(limit, 4) for limit in found] == [low, high]


def test_difference_the_other_way_round_has_the_mirrored_limits() -> None:
    low, high = limits_of_difference(56, 70, 48, 80)

    assert limits_of_difference(48, 80, 56, 70) == pytest.approx((-high, -low))


def test_difference_from_a_share_of_nothing_can_be_anything() -> None:
    assert limits_of_difference(0, 0, 5, 10) == (-1.0, 1.0)


def test_difference_of_what_is_not_a_count_is_refused() -> None:
    with pytest.raises(ValueError, match="not counts"):
        limits_of_difference(5, 4, 1, 10)
