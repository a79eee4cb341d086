"""The differential: pooling, shares and limits, flags, absolute counts, what is outside, and what blocks a release."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.differential import CellTypeRule, Rules, Tally, differential
from classifier.differential_chart import chart_of, stacked_bar
from classifier.laboratory_settings import start_cell_types
from ml.labels import CELL_TYPES

START = Rules(
    settings_version=0,
    target_count=100,
    cell_types=tuple(
        CellTypeRule(rule["slug"], rule["range_low"], rule["range_high"], rule["loinc"]) for rule in start_cell_types()
    ),
)


def rows(tally: Tally, rules: Rules = START, wbc: float | None = None) -> dict[str, dict[str, Any]]:
    return {cell["label"]: cell for cell in differential(tally, rules, wbc).as_json()["cells"]}


def reviewed(**counts: int) -> Tally:
    return Tally(reviewed=counts, pre_classified={})


def suggested(**counts: int) -> Tally:
    return Tally(reviewed={}, pre_classified=counts, unreviewed=sum(counts.values()))


def blockers(tally: Tally, rules: Rules = START) -> dict[str, int]:
    return {blocker.code: blocker.count for blocker in differential(tally, rules).blocked_by}


# --- Shares ----------------------------------------------------------------------------------------------------------


def test_shares_are_of_the_leukocytes_with_exact_limits() -> None:
    cells = rows(reviewed(neutrophil=60, lymphocyte=25, monocyte=10, eosinophil=5))

    assert (cells["neutrophil"]["percent"], cells["neutrophil"]["low"], cells["neutrophil"]["high"]) == (
        60.0,
        49.7209,
        69.6705,
    )
    assert (cells["monocyte"]["low"], cells["monocyte"]["high"]) == (4.9005, 17.6223)
    assert (cells["basophil"]["percent"], cells["basophil"]["low"], cells["basophil"]["high"]) == (0.0, 0.0, 3.6217)


def test_bands_are_pooled_into_neutrophils_and_stages_into_immature_granulocytes() -> None:
    cells = rows(
        Tally(
            reviewed={"neutrophil": 40, "band_neutrophil": 5, "promyelocyte": 1, "immature_granulocyte": 2},
            pre_classified={"band_neutrophil": 3, "myelocyte": 4, "metamyelocyte": 5, "lymphocyte": 40},
            unreviewed=52,
        )
    )

    assert (cells["neutrophil"]["reviewed"], cells["neutrophil"]["pre_classified"]) == (45, 3)
    assert (cells["immature_granulocyte"]["reviewed"], cells["immature_granulocyte"]["pre_classified"]) == (3, 9)
    assert not {"band_neutrophil", "promyelocyte", "myelocyte", "metamyelocyte"} & set(cells)
    assert sum(cell["n"] for cell in cells.values()) == 100


@pytest.mark.parametrize("outside", ["erythroblast", "platelet", "artefact", "smudge_cell"])
def test_what_is_no_leukocyte_stays_out_of_the_denominator(outside: str) -> None:
    found = differential(reviewed(neutrophil=80, **{outside: 20}), START)

    assert found.n == 80
    assert [(row.label, row.n) for row in found.outside] == [(outside, 20)]
    assert outside not in {cell.label for cell in found.cells}


def test_erythroblasts_are_given_per_100_leukocytes() -> None:
    found = differential(reviewed(neutrophil=150, lymphocyte=50, erythroblast=5, platelet=9), START).as_json()

    assert found["outside"] == [
        {"label": "erythroblast", "n": 5, "per_100_wbc": 2.5},
        {"label": "platelet", "n": 9, "per_100_wbc": None},
    ]


def test_erythroblasts_without_leukocytes_have_no_rate() -> None:
    assert differential(reviewed(erythroblast=5), START).outside[0].per_100_wbc is None


def test_every_cell_type_is_either_counted_or_outside() -> None:
    """A type of the vocabulary that got lost would silently leave the differential."""
    found = differential(reviewed(**dict.fromkeys(CELL_TYPES, 1)), START)

    assert found.n + sum(row.n for row in found.outside) == len(CELL_TYPES)


def test_rows_come_in_the_laboratorys_order() -> None:
    rules = Rules(
        3,
        100,
        (
            CellTypeRule("monocyte", 2, 8, ""),
            CellTypeRule("immature_granulocyte", None, None, ""),
            CellTypeRule("neutrophil", 50, 70, ""),
        ),
    )
    cells = rows(reviewed(lymphocyte=3, neutrophil=50, immature_granulocyte=1), rules)

    assert list(cells) == ["monocyte", "immature_granulocyte", "neutrophil", "lymphocyte"]


def test_types_with_a_range_are_listed_even_at_zero_and_the_others_when_they_occur() -> None:
    assert list(rows(reviewed(neutrophil=10))) == ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]
    assert "immature_granulocyte" in rows(reviewed(neutrophil=10, myelocyte=1))


def test_nothing_counted_gives_no_percent_and_no_flag() -> None:
    """0 % would be a finding, and L a false alarm."""
    found = differential(Tally({}, {}), START, 6.0)

    assert found.n == 0
    assert all(
        (cell.percent, cell.low, cell.high, cell.flag, cell.absolute) == (None, None, None, None, None)
        for cell in found.cells
    )


def test_shares_add_up_before_they_are_rounded() -> None:
    found = differential(reviewed(neutrophil=1, lymphocyte=1, monocyte=1), START)

    assert sum(cell.percent or 0 for cell in found.cells) == pytest.approx(100)
    assert [cell["percent"] for cell in found.as_json()["cells"]][:3] == [33.3333, 33.3333, 33.3333]


def test_limit_that_is_written_to_one_decimal_was_not_rounded_nearby_before() -> None:
    """1 of 100 reaches to 5.446 %: 5.4, as the tables say; by way of 5.45 it would become 5.5."""
    assert f"{rows(reviewed(neutrophil=99, basophil=1))['basophil']['high']:.1f}" == "5.4"


@given(
    st.dictionaries(st.sampled_from(CELL_TYPES), st.integers(0, 60), max_size=8),
    st.dictionaries(st.sampled_from(CELL_TYPES), st.integers(0, 60), max_size=8),
    st.none() | st.floats(0, 300),
)
def test_whatever_is_counted_no_cell_is_lost_and_every_share_lies_within_its_limits(
    named: dict[str, int], said: dict[str, int], wbc: float | None
) -> None:
    found = differential(Tally(named, said, sum(said.values())), START, wbc)

    counted = sum(named.values()) + sum(said.values())
    assert sum(cell.n for cell in found.cells) == found.n
    assert found.n + sum(row.n for row in found.outside) == counted == found.reviewed + found.pre_classified
    for cell in found.cells:
        if cell.percent is None or cell.low is None or cell.high is None:
            assert found.n == 0
        else:
            assert 0 <= cell.low <= cell.percent <= cell.high <= 100
            assert (cell.absolute is None) == (wbc is None)
    assert len({cell.label for cell in found.cells}) == len(found.cells)


# --- Flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "flag"),
    [
        (49, 100, "L"),
        (50, 100, None),
        (70, 100, None),
        (71, 100, "H"),
        (7_001, 10_000, "H"),  # 70.0 to one decimal, and above the range
        (4_999, 10_000, "L"),
        (0, 100, "L"),
    ],
)
def test_flag_compares_the_unrounded_share_with_the_range(k: int, n: int, flag: str | None) -> None:
    assert rows(reviewed(neutrophil=k, lymphocyte=n - k))["neutrophil"]["flag"] == flag


@pytest.mark.parametrize(("low", "high", "flag"), [(None, 40, "H"), (60, None, "L"), (None, None, None)])
def test_range_may_have_one_end_or_none(low: float | None, high: float | None, flag: str | None) -> None:
    rules = Rules(1, 100, (CellTypeRule("neutrophil", low, high, ""),))

    assert rows(reviewed(neutrophil=50, lymphocyte=50), rules)["neutrophil"]["flag"] == flag


def test_ranges_and_the_version_of_the_settings_are_in_the_result() -> None:
    found = differential(reviewed(neutrophil=1), Rules(7, 200, (CellTypeRule("neutrophil", 45.5, 70, ""),))).as_json()

    assert (found["settings_version"], found["target_count"]) == (7, 200)
    assert (found["cells"][0]["range_low"], found["cells"][0]["range_high"]) == (45.5, 70)


# --- Absolute counts -------------------------------------------------------------------------------------------------


def test_absolute_counts_are_the_share_of_the_wbc_with_its_limits() -> None:
    cells = rows(reviewed(neutrophil=60, lymphocyte=40), wbc=7.2)

    assert cells["neutrophil"]["absolute"] == {"value": 4.32, "low": 3.5799, "high": 5.0163}


def test_without_a_wbc_there_are_no_absolute_counts() -> None:
    assert all(cell["absolute"] is None for cell in rows(reviewed(neutrophil=60)).values())


def test_wbc_of_zero_is_a_wbc() -> None:
    assert rows(reviewed(neutrophil=60), wbc=0.0)["neutrophil"]["absolute"] == {"value": 0.0, "low": 0.0, "high": 0.0}


# --- Who says so -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tally", "basis"),
    [
        (reviewed(neutrophil=3), "reviewed"),
        (suggested(neutrophil=3), "pre_classified"),
        (Tally({"neutrophil": 1}, {"lymphocyte": 1}, unreviewed=1), "mixed"),
        (Tally({"neutrophil": 1}, {"erythroblast": 1}, unreviewed=1), "mixed"),
        (Tally({}, {}), "pre_classified"),
        (Tally({}, {}, unidentified=3), "pre_classified"),
    ],
)
def test_basis_says_reviewed_only_where_a_person_has_named_every_cell(tally: Tally, basis: str) -> None:
    assert differential(tally, START).basis == basis


# --- What blocks a release -------------------------------------------------------------------------------------------


def test_reviewed_case_of_enough_cells_is_not_blocked() -> None:
    assert blockers(reviewed(neutrophil=60, lymphocyte=40)) == {}


def test_everything_that_is_left_to_do_blocks_with_its_count_in_the_order_of_the_work() -> None:
    tally = Tally({"neutrophil": 90}, {"lymphocyte": 4}, 4, unidentified=3, unusable=2, queued=5, failed=6)

    assert blockers(tally) == {"queued": 5, "failed": 6, "unidentified": 3, "unreviewed": 4, "below_target_count": 6}
    assert [blocker.code for blocker in differential(tally, START).blocked_by] == [
        "queued",
        "failed",
        "unidentified",
        "unreviewed",
        "below_target_count",
    ]


def test_empty_case_is_blocked_for_want_of_images() -> None:
    assert blockers(Tally({}, {})) == {"no_images": 0, "below_target_count": 100}


def test_case_of_nothing_but_unusable_pictures_has_images() -> None:
    assert blockers(Tally({}, {}, unusable=2)) == {"below_target_count": 100}


def test_erythroblasts_do_not_count_towards_the_target() -> None:
    assert blockers(reviewed(neutrophil=60, lymphocyte=30, erythroblast=30)) == {"below_target_count": 10}


@pytest.mark.parametrize(
    ("tally", "message"),
    [
        (Tally({"neutrophil": 100}, {}, failed=1), "1 image is not classifiable: read by hand, or mark as unusable."),
        (Tally({"neutrophil": 100}, {}, unidentified=2), "2 images are unidentified: say what each one is."),
        (reviewed(neutrophil=98), "98 of 100 leukocytes counted: upload 2 more."),
    ],
)
def test_blocker_is_a_sentence_with_its_number(tally: Tally, message: str) -> None:
    assert [blocker.message for blocker in differential(tally, START).blocked_by] == [message]


def test_json_holds_numbers_and_nothing_else_where_numbers_belong() -> None:
    found = json.loads(json.dumps(differential(suggested(neutrophil=3, erythroblast=1), START, 6.5).as_json()))

    assert set(found) >= {"n", "basis", "cells", "outside", "blocked_by", "unidentified", "unusable", "wbc"}
    for cell in found["cells"]:
        assert all(isinstance(cell[key], int | float) for key in ("n", "percent", "low", "high"))
    assert found["wbc"] == 6.5


# --- Drawn -----------------------------------------------------------------------------------------------------------


def test_chart_places_bars_whiskers_and_ranges_on_one_axis() -> None:
    tally = Tally({"neutrophil": 30}, {"neutrophil": 30, "lymphocyte": 40}, unreviewed=70)
    chart = chart_of(differential(tally, START).as_json()["cells"])
    bar = chart.bars[0]

    assert chart.axis.end == 70
    assert (bar.label, bar.reviewed_width, bar.pre_classified_x, bar.pre_classified_width) == (
        "neutrophil",
        "42.86%",
        "42.86%",
        "42.86%",
    )
    assert (bar.low_x, bar.high_x) == ("71.03%", "99.53%")
    assert (bar.band_x, bar.band_width) == ("71.43%", "28.57%")
    assert [share for _, share, _ in chart.axis.ticks] == [0, 20, 40, 60]


def test_chart_of_nothing_counted_draws_ranges_alone() -> None:
    bars = chart_of(differential(Tally({}, {}), START).as_json()["cells"]).bars

    assert all((bar.reviewed_width, bar.pre_classified_width, bar.low_x) == (None, None, None) for bar in bars)
    assert bars[0].band_width


def test_stacked_bar_shows_leukocytes_beside_each_other_and_the_unidentified_last() -> None:
    tally = Tally(
        {"neutrophil": 30, "platelet": 7}, {"band_neutrophil": 10, "lymphocyte": 40}, unreviewed=50, unidentified=20
    )

    assert [(part.name, part.n, part.x, part.width) for part in stacked_bar(tally)] == [
        ("Neutrophil", 40, "0.00%", "40.00%"),
        ("Lymphocyte", 40, "40.00%", "40.00%"),
        ("Unidentified", 20, "80.00%", "20.00%"),
    ]


def test_stacked_bar_of_an_empty_case_has_no_parts() -> None:
    assert stacked_bar(Tally({}, {})) == []
