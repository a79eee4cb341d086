"""The models' pages in a browser: they fit, they are accessible, their charts are where they should be."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from accounts.models import User
from classifier.model_registry import register_bundle
from classifier.models import ModelVersion
from ml.model_card import CARD_FILE, read_card, shipped_bundle
from tests.browser.conftest import Visit
from tests.browser.test_pages import faults_in_both_themes

pytestmark = pytest.mark.browser

BINS = [{"low": b / 15, "high": (b + 1) / 15, "n": 9 * b, "confidence": b / 15, "accuracy": b / 16} for b in range(15)]
MISTAKE = {"label": "monocyte", "said": "immature_granulocyte", "confidence": 0.98, "abstained": True}


@pytest.fixture
def full_model(settings: Any, tmp_path: Path, db: None) -> ModelVersion:
    """The shipped model with a card that holds all that a card can, and long names in it."""
    settings.MODEL_BUNDLES = tmp_path / "bundles"
    bundle = settings.MODEL_BUNDLES / shipped_bundle().name
    shutil.copytree(shipped_bundle(), bundle)
    values = json.loads((bundle / CARD_FILE).read_text())
    for key, figures in values["metrics"].items():
        listed = [{**MISTAKE, "path": f"{key}/monocyte/{'a-long-name-' * 6}{number}.jpg"} for number in range(12)]
        clusters = [{"name": f"slide-{'0' * 20}-{number}", "n": 50, "right": 45} for number in range(40)]
        answered = {"answered": 9, "accuracy_answered_low": 0.9, "accuracy_answered_high": 0.999}
        figures |= {
            "reliability": BINS,
            "worst_mistakes": listed,
            "clusters": clusters,
            "clusters_total": 90,
            **answered,
        }
    values["training"]["junk"] = {"n": 366, "refused": 363, "kinds": {"red_cells_only": {"n": 100, "refused": 99}}}
    (bundle / CARD_FILE).write_text(json.dumps(values))
    return register_bundle(bundle)


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_the_models_fit_and_are_accessible(
    visit: Visit, technologist: User, full_model: ModelVersion, width: int
) -> None:
    page = visit(technologist, "/models/", width=width)
    faults = faults_in_both_themes(page)
    page.goto(f"/models/{full_model.pk}/")
    page.evaluate("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    faults += faults_in_both_themes(page)
    assert faults == []


def test_the_way_to_a_card_and_through_it(visit: Visit, technologist: User, full_model: ModelVersion) -> None:
    page = visit(technologist)
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("link", name=str(full_model)).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(str(full_model))
    expect(page.get_by_role("heading", level=2).first).to_have_text("What it is for, and where it ends")
    last = page.locator(".data-set").last
    expect(last.locator(".matrix")).to_be_hidden()
    last.locator("summary").first.press("Enter")
    expect(last.locator(".matrix")).to_be_visible()


def test_a_dot_stands_at_its_figure(visit: Visit, technologist: User, full_model: ModelVersion) -> None:
    page = visit(technologist, f"/models/{full_model.pk}/")
    places: dict[str, float] = page.evaluate(
        """() => {
          const chart = document.querySelector(".line-own svg");
          const frame = chart.getBoundingClientRect();
          const dot = chart.querySelector(".mark").getBoundingClientRect();
          const begin = parseFloat(document.querySelector(".ticks text").textContent) / 100;
          return { begin, dot: (dot.left + dot.width / 2 - frame.left) / frame.width };
        }"""
    )
    accuracy = next(iter(read_card(shipped_bundle()).metrics.values()))["accuracy"]
    assert places["dot"] == pytest.approx((accuracy - places["begin"]) / (1 - places["begin"]), abs=0.01)
