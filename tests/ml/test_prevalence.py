import pytest

from ml.prevalence import ADULT_DIFFERENTIAL, adult_prevalences, predictive_values

FIVE = {label: {label: 99} for label in ADULT_DIFFERENTIAL}


def test_shares_are_scaled_to_the_types_that_occur() -> None:
    assert sum(adult_prevalences(FIVE).values()) == pytest.approx(1)
    assert adult_prevalences(FIVE)["basophil"] == pytest.approx(0.005 / 1.005)
    four = {label: row for label, row in FIVE.items() if label != "basophil"}
    assert adult_prevalences({**four, "basophil": {}}) == pytest.approx(
        {"neutrophil": 0.6, "lymphocyte": 0.3, "monocyte": 0.07, "eosinophil": 0.03}
    )


def test_few_neutrophils_called_basophil_outweigh_all_basophils() -> None:
    confusion = {**FIVE, "neutrophil": {"neutrophil": 99, "basophil": 1}}
    value = predictive_values(confusion)["basophil"]
    assert value is not None
    assert value.ppv == pytest.approx(0.005 / (0.005 + 0.6 * 0.01))
    assert value.low < value.ppv < value.high


def test_no_false_call_in_the_set_is_not_certainty() -> None:
    value = predictive_values(FIVE)["basophil"]
    assert value is not None
    assert (value.ppv, value.high) == (1.0, 1.0)
    assert value.low < 0.6


def test_more_pictures_narrow_the_interval() -> None:
    def width(n: int) -> float:
        confusion = {"neutrophil": {"neutrophil": 98 * n, "monocyte": 2 * n}, "monocyte": {"monocyte": 100 * n}}
        value = predictive_values(confusion)["monocyte"]
        assert value is not None
        return value.high - value.low

    assert width(10) < width(1) / 2


def test_types_outside_the_differential_have_no_value() -> None:
    confusion = {**FIVE, "platelet": {"platelet": 50}, "immature_granulocyte": {"basophil": 50}}
    values = predictive_values(confusion)
    assert values["platelet"] is None
    assert values["immature_granulocyte"] is None
    # What does not occur in normal blood can't be called basophil there.
    assert values["basophil"] == predictive_values(FIVE)["basophil"]


def test_a_type_that_is_never_said_has_no_value() -> None:
    assert predictive_values({"neutrophil": {"neutrophil": 9}, "monocyte": {"neutrophil": 9}})["monocyte"] is None
