"""Shares corrected for misclassification: by hand, by the card, and by simulation."""

import random
from collections.abc import Mapping

import pytest

from classifier.corrected_shares import (
    Confusion,
    CorrectedShare,
    corrected_shares,
    design_effect_of,
    nearest_confusion,
)
from ml.model_card import read_card, shipped_bundle

Counts = dict[str, int]
# 90 of 100 neutrophils and 80 of 100 lymphocytes are called by their names.
TWO_CLASSES = {
    "neutrophil": {"neutrophil": 90, "lymphocyte": 10},
    "lymphocyte": {"neutrophil": 20, "lymphocyte": 80},
}


def by_label(counts: Counts, confusion: Confusion) -> dict[str, CorrectedShare]:
    found = corrected_shares(counts, confusion)
    assert found is not None
    return {share.label: share for share in found.shares}


def test_two_classes_are_corrected_as_by_hand() -> None:
    """Rogan and Gladen: (said - (1 - specificity)) / (sensitivity + specificity - 1) = (0.55 - 0.2) / 0.7 = 0.5."""
    shares = by_label({"neutrophil": 110, "lymphocyte": 90}, Confusion("set", TWO_CLASSES))

    assert shares["neutrophil"].raw == pytest.approx(55)
    assert shares["neutrophil"].percent == pytest.approx(50)
    assert shares["lymphocyte"].percent == pytest.approx(50)


def test_limits_of_two_classes_are_as_by_hand() -> None:
    """The delta method: var = (q (1 - q) / N + p^2 se (1 - se) / n1 + (1 - p)^2 sp (1 - sp) / n2) / (se + sp - 1)^2."""
    many = {true: {said: 100 * n for said, n in row.items()} for true, row in TWO_CLASSES.items()}
    shares = by_label({"neutrophil": 11_000, "lymphocyte": 9_000}, Confusion("set", many))

    variance = (0.55 * 0.45 / 20_000 + 0.25 * 0.9 * 0.1 / 10_000 + 0.25 * 0.8 * 0.2 / 10_000) / 0.7**2
    reach = 100 * 1.96 * variance**0.5
    assert shares["neutrophil"].low == pytest.approx(50 - reach, abs=0.02)
    assert shares["neutrophil"].high == pytest.approx(50 + reach, abs=0.02)


def test_model_without_errors_keeps_its_shares() -> None:
    right = {label: {label: 500} for label in ("neutrophil", "lymphocyte", "monocyte")}
    shares = by_label({"neutrophil": 60, "lymphocyte": 30, "monocyte": 10}, Confusion("set", right))

    assert {label: share.percent for label, share in shares.items()} == pytest.approx(
        {"neutrophil": 60, "lymphocyte": 30, "monocyte": 10}
    )


def test_estimate_is_never_negative_and_all_of_it_is_100_percent() -> None:
    """2 of 100 called eosinophils are fewer than come from the neutrophils alone."""
    matrix = {
        "neutrophil": {"neutrophil": 90, "eosinophil": 10},
        "eosinophil": {"eosinophil": 95, "neutrophil": 5},
        "lymphocyte": {"lymphocyte": 100},
    }
    shares = by_label({"neutrophil": 78, "lymphocyte": 20, "eosinophil": 2}, Confusion("set", matrix))

    assert shares["eosinophil"].percent == 0
    assert shares["eosinophil"].high > 1
    assert sum(share.percent for share in shares.values()) == pytest.approx(100)
    assert all(0 <= share.low <= share.percent <= share.high <= 100 for share in shares.values())


def test_matrix_that_is_nearly_singular_is_refused() -> None:
    """Called by the toss of a coin, or nearly: the inverse would make noise of the counts."""
    for right in (50, 51, 54):
        coin = {
            "neutrophil": {"neutrophil": right, "lymphocyte": 100 - right},
            "lymphocyte": {"neutrophil": 100 - right, "lymphocyte": right},
        }
        assert corrected_shares({"neutrophil": 60, "lymphocyte": 40}, Confusion("set", coin)) is None


@pytest.mark.parametrize("counts", [{}, {"platelet": 4, "erythroblast": 2}])
def test_without_leukocytes_there_is_nothing_to_correct(counts: Counts) -> None:
    assert corrected_shares(counts, Confusion("set", TWO_CLASSES)) is None


def test_matrix_of_a_handful_of_cells_is_not_used() -> None:
    few = {"neutrophil": {"neutrophil": 5}, "lymphocyte": {"lymphocyte": 4}}

    assert corrected_shares({"neutrophil": 60}, Confusion("set", few)) is None


def test_type_that_was_not_measured_is_taken_as_it_was_called_and_marked() -> None:
    shares = by_label({"neutrophil": 55, "lymphocyte": 35, "monocyte": 10}, Confusion("set", TWO_CLASSES))

    assert not shares["monocyte"].measured
    assert shares["neutrophil"].measured
    assert shares["monocyte"].percent == pytest.approx(10)


def test_bands_are_corrected_with_the_neutrophils() -> None:
    plain = corrected_shares({"neutrophil": 110, "lymphocyte": 90}, Confusion("set", TWO_CLASSES))

    assert (
        corrected_shares({"neutrophil": 90, "band_neutrophil": 20, "lymphocyte": 90}, Confusion("set", TWO_CLASSES))
        == plain
    )


def test_platelets_called_leukocytes_leave_the_denominator() -> None:
    """10 of the 110 called lymphocytes are the tenth part of 100 platelets that are called so."""
    matrix = {
        "lymphocyte": {"lymphocyte": 100},
        "neutrophil": {"neutrophil": 100},
        "platelet": {"platelet": 90, "lymphocyte": 10},
    }
    shares = by_label({"lymphocyte": 110, "neutrophil": 100, "platelet": 90}, Confusion("set", matrix))

    assert "platelet" not in shares
    assert shares["lymphocyte"].percent == pytest.approx(50)


# --- The model card --------------------------------------------------------------------------------------------------


def test_slides_that_were_held_out_go_before_cells_of_known_slides() -> None:
    figures = {"confusion": TWO_CLASSES}

    nearest = nearest_confusion({"pbc_test": figures, "junk": {"n": 3}, "raabin_held_out_slides": figures})

    assert nearest is not None
    assert nearest.data_set == "raabin_held_out_slides"
    assert nearest.n == 200


def test_data_set_of_another_name_is_better_than_none() -> None:
    nearest = nearest_confusion({"our_cells": {"confusion": TWO_CLASSES}})

    assert nearest is not None
    assert nearest.data_set == "our_cells"


def test_card_without_a_matrix_gives_no_estimate() -> None:
    assert nearest_confusion({"pbc_test": {"accuracy": 0.9}}) is None


def test_shipped_model_gives_an_estimate_that_knows_its_slides() -> None:
    """A few slides tell less than as many independent cells: the limits are wider than those of the cells alone."""
    confusion = nearest_confusion(read_card(shipped_bundle()).metrics)
    assert confusion is not None
    counts = {"neutrophil": 60, "lymphocyte": 29, "monocyte": 7, "eosinophil": 3, "basophil": 1}
    clustered = by_label(counts, confusion)
    independent = by_label(counts, Confusion(confusion.data_set, confusion.counts))

    assert confusion.design_effect > 1.2
    for label, share in clustered.items():
        assert share.percent == pytest.approx(independent[label].percent)
        assert share.high - share.low > independent[label].high - independent[label].low


def test_interval_of_independent_cells_has_no_design_effect() -> None:
    assert design_effect_of({"n": 300, "accuracy": 0.77, "accuracy_low": 0.7197, "accuracy_high": 0.8141}) == 1.0
    assert design_effect_of({"accuracy": 0.77}) == 1.0


# --- Simulation ------------------------------------------------------------------------------------------------------

TRUTH = {"neutrophil": 0.6, "lymphocyte": 0.29, "monocyte": 0.07, "eosinophil": 0.03, "basophil": 0.01}
CALLED = {
    "neutrophil": {"neutrophil": 0.94, "lymphocyte": 0.01, "monocyte": 0.01, "eosinophil": 0.03, "basophil": 0.01},
    "lymphocyte": {"lymphocyte": 0.93, "monocyte": 0.06, "neutrophil": 0.01},
    "monocyte": {"monocyte": 0.9, "lymphocyte": 0.08, "eosinophil": 0.02},
    "eosinophil": {"eosinophil": 0.82, "basophil": 0.14, "lymphocyte": 0.02, "monocyte": 0.02},
    "basophil": {"basophil": 0.98, "platelet": 0.02},
}
MEASURED = {"neutrophil": 234, "lymphocyte": 224, "monocyte": 101, "eosinophil": 101, "basophil": 72}


def drawn(chance: random.Random, shares: Mapping[str, float], n: int) -> Counts:
    counts: Counts = {}
    for label in chance.choices(list(shares), weights=list(shares.values()), k=n):
        counts[label] = counts.get(label, 0) + 1
    return counts


def called(chance: random.Random, true: Counts) -> Counts:
    said: Counts = {}
    for label, n in true.items():
        for other, k in drawn(chance, CALLED[label], n).items():
            said[other] = said.get(other, 0) + k
    return said


@pytest.fixture(scope="module")
def simulated() -> list[tuple[Counts, dict[str, CorrectedShare]]]:
    """400 smears of 200 cells by a model whose matrix was measured anew each time: (what was said, the estimate)."""
    chance = random.Random(20)
    outcomes = []
    for _ in range(400):
        said = called(chance, drawn(chance, TRUTH, 200))
        matrix = {true: drawn(chance, CALLED[true], n) for true, n in MEASURED.items()}
        outcomes.append((said, by_label(said, Confusion("set", matrix))))
    return outcomes


@pytest.mark.parametrize("label", TRUTH)
def test_limits_cover_the_truth_in_95_of_100_smears(
    label: str, simulated: list[tuple[Counts, dict[str, CorrectedShare]]]
) -> None:
    """Of 400 draws, 365 or fewer come by chance once in a thousand times when 95 % are covered."""
    true = 100 * TRUTH[label]
    covered = sum(label not in shares or shares[label].low <= true <= shares[label].high for _, shares in simulated)

    assert covered > 365


@pytest.mark.parametrize("label", ["neutrophil", "eosinophil"])
def test_estimate_is_nearer_to_the_truth_than_the_raw_share(
    label: str, simulated: list[tuple[Counts, dict[str, CorrectedShare]]]
) -> None:
    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    corrected = mean([shares[label].percent for _, shares in simulated if label in shares])
    raw = mean([100 * said.get(label, 0) / 200 for said, _ in simulated])

    assert abs(corrected - 100 * TRUTH[label]) < abs(raw - 100 * TRUTH[label]) / 3


def test_limits_are_narrow_enough_to_be_of_use(simulated: list[tuple[Counts, dict[str, CorrectedShare]]]) -> None:
    widths = [shares["neutrophil"].high - shares["neutrophil"].low for _, shares in simulated]

    assert sum(widths) / len(widths) < 17
