import json
from pathlib import Path

import pytest

from ml.model_card import read_card
from ml.published import PUBLISHED, SEED_RECIPE_FILE, published_for, seed_recipe

SEED = {
    "n": 2487,
    "accuracy": 0.6,
    "accuracy_low": 0.5,
    "accuracy_high": 0.7,
    "originals": {"n": 71, "right": 51},
    "seconds": 438,
    "cached_seconds": 19,
}


def test_every_published_figure_is_a_fraction_with_its_source_and_what_differs() -> None:
    for result in PUBLISHED:
        assert 0 < result.accuracy < 1
        assert result.url.startswith("https://")
        assert result.citation
        assert result.protocol.endswith(".")


def test_every_data_set_of_the_shipped_card_has_something_beside_it(bundle: Path) -> None:
    for data_set in read_card(bundle).metrics:
        assert published_for(data_set), data_set


def test_published_figures_come_best_first_and_only_of_their_set() -> None:
    found = published_for("pbc_test")
    assert [result.accuracy for result in found] == sorted((result.accuracy for result in found), reverse=True)
    assert {result.source for result in found} == {"pbc"}
    assert published_for("elsewhere") == []


def test_the_seed_recipe_is_read(tmp_path: Path) -> None:
    (tmp_path / SEED_RECIPE_FILE).write_text(json.dumps(SEED))
    found = seed_recipe(tmp_path)
    assert found is not None
    assert (found.n, found.accuracy, found.originals_right, found.originals_n) == (2487, 0.6, 51, 71)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", json.dumps({**SEED, "originals": 71})])
def test_a_seed_recipe_that_is_missing_or_unreadable_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / SEED_RECIPE_FILE).write_text(text)
    assert seed_recipe(tmp_path) is None
