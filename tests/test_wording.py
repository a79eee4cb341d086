"""How numbers, ages and cell types are written."""

from datetime import timedelta
from pathlib import Path

import pytest

from classifier.cell_types import CELL_TYPE_TEXTS
from classifier.templatetags.cell_types import age, cell_name, percent
from ml.model_card import read_card, shipped_bundle

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.934, "93.4 %"),
        (0.99999, "> 99.9 %"),
        (1.0, "> 99.9 %"),
        (0.00004, "< 0.1 %"),
        (0.0, "< 0.1 %"),
        (0.5, "50.0 %"),
    ],
)
def test_percent_never_rounds_to_certainty(fraction: float, text: str) -> None:
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (400000, "4 d"), (-5, "0 s")],
)
def test_age_is_one_round_number(seconds: int, text: str) -> None:
    assert age(timedelta(seconds=seconds)) == text


def test_cell_types_have_names_for_people() -> None:
    assert cell_name("immature_granulocyte") == "Immature granulocyte"


def test_every_class_that_the_shipped_model_says_is_explained() -> None:
    for slug in read_card(shipped_bundle()).labels:
        text = CELL_TYPE_TEXTS[slug]
        assert text.function.endswith(".")
        assert text.normal_share


def test_no_page_of_the_documentation_waits_for_a_figure() -> None:
    written = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(written) > 10
    assert [path.name for path in written if "FIGURE_" in path.read_text(encoding="utf-8")] == []
