"""The audit desk in a browser: axe finds nothing of ours, it fits a phone, and an export runs from wish to file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from accounts.models import User
from classifier import export_steps, services
from classifier.models import CellImage, ModelVersion
from tests.browser.test_pages import AT_ONCE, AXE, COLOUR_RULES, RULES, RUN_AXE
from tests.factories import prediction_of

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
Visit = Callable[..., Page]
MakeImage = Callable[..., CellImage]
LISTS = ("prediction", "review", "cellimage", "case", "export")


@pytest.fixture
def reviewed(make_image: MakeImage, model_version: ModelVersion, reader: User) -> list[CellImage]:
    """Images that the model and a reader called something, once not the same."""
    images = []
    for said, final in (("lymphocyte", "lymphocyte"), ("lymphocyte", "monocyte"), ("neutrophil", "neutrophil")):
        image = make_image("classified")
        prediction_of(image, model_version, label=said)
        verdict = "CONFIRMED" if said == final else "CORRECTED"
        services.review_image(actor=reader, image=image, verdict=verdict, final_label="" if said == final else final)
        images.append(image)
    return images


def faults_of(page: Page) -> list[str]:
    """In the light theme, and then of the colours in the dark one."""
    page.evaluate(AXE)
    # axe loads what a style sheet imports into a <style> of its own, which the policy refuses; no rule here needs it.
    run = RUN_AXE.replace("resultTypes:", "preload: false, resultTypes:")
    faults = page.evaluate(run, {"type": "tag", "values": RULES})
    page.evaluate(AT_ONCE)
    page.emulate_media(color_scheme="dark")
    faults += page.evaluate(run, {"type": "rule", "values": COLOUR_RULES})
    page.emulate_media(color_scheme="light")
    return [f"{page.url}: {fault}" for fault in faults]


def across(page: Page) -> int:
    """By how many pixels the page is wider than the window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wider


@pytest.mark.parametrize("width", [1280, 390])
def test_dashboard_and_lists_are_accessible(visit: Visit, auditor: User, reviewed: list[CellImage], width: int) -> None:
    page = visit(auditor, reverse("admin:index"), width=width)
    faults = faults_of(page)
    assert across(page) <= 0
    for listed in LISTS:
        page.goto(reverse(f"admin:classifier_{listed}_changelist"))
        faults += faults_of(page)
    page.goto(reverse("admin:classifier_prediction_change", args=[reviewed[0].predictions.get().pk]))
    faults += faults_of(page)
    page.goto(reverse("exports"))
    faults += faults_of(page)
    assert across(page) <= 0

    assert faults == [], "\n".join(faults)


def test_figure_leads_to_its_list_and_the_list_to_a_file(
    visit: Visit, auditor: User, reviewed: list[CellImage], tmp_path: Path, complaints: list[Any]
) -> None:
    page = visit(auditor, reverse("admin:index"))

    page.get_by_role("link", name="Overrides: 1").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Export as CSV").click()
    page.get_by_text("Waiting", exact=True).wait_for()
    while export_steps.continue_export():
        pass
    with page.expect_download() as waited:
        page.get_by_role("link", name="Download").click()

    waited.value.save_as(tmp_path / "reviews.csv")
    lines = (tmp_path / "reviews.csv").read_text("utf-8-sig").splitlines()
    assert len(lines) == 2
    assert "monocyte" in lines[1]
