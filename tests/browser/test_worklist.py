"""The worklist in a browser: at the keyboard, with its filters, on a phone; and the pages around a case."""

import re

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from accounts.models import User
from classifier import services
from classifier.models import Case, ModelVersion
from tests.browser.conftest import Visit
from tests.browser.test_pages import faults_in_both_themes
from tests.factories import image_in_state, prediction_of

pytestmark = pytest.mark.browser


@pytest.fixture
def worklist(technologist: User, reader: User, model_version: ModelVersion) -> list[Case]:
    """Three cases, the newest first: a reviewed one, an unread one with an unidentified cell, and one without cells."""
    empty = services.open_case(actor=technologist, accession_number="A-1")
    unread = services.open_case(actor=technologist, accession_number="A-2", patient_pseudonym="P-77")
    reviewed = services.open_case(actor=technologist, accession_number="A-3-" + "LONG-" * 8)
    for case, label in ((unread, "monocyte"), (unread, ""), (reviewed, "neutrophil")):
        image = image_in_state("classified", case=case, uploaded_by=technologist)
        said = {
            "label": label,
            "suggestion": label or "basophil",
            "abstained": not label,
            "reason": "" if label else "?",
        }
        prediction_of(image, model_version, **said)
        if case is reviewed:
            services.review_image(actor=reader, image=image, verdict="CONFIRMED")
    services.assign_case(actor=technologist, case=unread, reader=reader)
    return [reviewed, unread, empty]


def numbers(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("[data-worklist] tbody th a").all_inner_texts()]


def test_arrows_move_from_case_to_case_and_enter_opens(visit: Visit, reader: User, worklist: list[Case]) -> None:
    page = visit(reader, "/cases/")
    focused = page.locator("[data-worklist] tbody th a:focus")

    page.keyboard.press("ArrowDown")
    expect(focused).to_have_text(worklist[0].accession_number)
    page.keyboard.press("ArrowUp")
    expect(focused).to_have_text(worklist[0].accession_number)
    page.keyboard.press("End")
    expect(focused).to_have_text("A-1")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_text("A-2")
    page.keyboard.press("Enter")

    expect(page).to_have_url(re.compile(f"/cases/{worklist[1].pk}/"))


def test_arrows_in_a_field_belong_to_the_field(visit: Visit, reader: User, worklist: list[Case]) -> None:
    page = visit(reader, "/cases/")

    page.get_by_label("Class", exact=True).focus()
    page.keyboard.press("ArrowDown")

    expect(page.get_by_label("Class", exact=True)).to_be_focused()
    expect(page.get_by_label("Class", exact=True)).to_have_value("neutrophil")


def test_whole_row_is_the_link(visit: Visit, reader: User, worklist: list[Case]) -> None:
    page = visit(reader, "/cases/")

    row = page.locator("[data-worklist] tbody tr").nth(1)
    size = row.bounding_box() or {}
    row.click(position={"x": size["width"] - 20, "y": size["height"] / 2})

    expect(page).to_have_url(re.compile(f"/cases/{worklist[1].pk}/"))


def test_filters_narrow_the_list_and_leave_a_clean_address(visit: Visit, reader: User, worklist: list[Case]) -> None:
    page = visit(reader, "/cases/")
    page.get_by_label("Class", exact=True).select_option("monocyte")
    page.get_by_label("Assigned to").select_option("me")
    page.get_by_role("button", name="Show").click()

    expect(page).to_have_url(re.compile(r"/cases/\?cell_type=monocyte&assigned=me$"))
    assert numbers(page) == ["A-2"]
    expect(page.get_by_label("Class", exact=True)).to_have_value("monocyte")
    page.get_by_role("link", name="Clear").click()
    assert numbers(page) == [case.accession_number for case in worklist]
    unread = page.get_by_role("link", name=re.compile("^Unread"))
    unread.click()
    assert numbers(page) == ["A-2"]
    expect(unread).to_have_attribute("aria-current", "page")


def test_worklist_works_without_a_script(visit: Visit, reader: User, worklist: list[Case]) -> None:
    page = visit(reader, "/cases/", java_script_enabled=False)

    page.get_by_label("Unidentified", exact=True).select_option("yes")
    page.get_by_role("button", name="Show").click()

    assert numbers(page) == ["A-2"]


def test_search_by_pseudonym_lists_the_case_and_by_number_opens_it(
    visit: Visit, reader: User, worklist: list[Case]
) -> None:
    page = visit(reader, "/cases/")
    for text in ("P-77", "a-2"):
        page.get_by_role("search").get_by_role("searchbox").fill(text)
        page.get_by_role("search").get_by_role("button").click()
        if text == "P-77":
            expect(page.locator("[data-worklist] tbody")).to_contain_text("found by pseudonym")
            assert text not in page.url

    expect(page).to_have_url(re.compile(f"/cases/{worklist[1].pk}/"))


def test_bell_leads_to_what_happened_and_opening_it_takes_the_number_away(
    visit: Visit, reader: User, worklist: list[Case]
) -> None:
    page = visit(reader, "/cases/")
    expect(page.locator(".bell-count")).to_have_text("1")

    page.get_by_role("link", name="Notifications, unread: 1").click()
    page.get_by_role("button", name="A case was assigned to you A-2").click()

    expect(page).to_have_url(re.compile(f"/cases/{worklist[1].pk}/"))
    expect(page.locator(".bell-count")).to_have_count(0)


def test_case_is_assigned_changed_and_voided_by_its_pages(visit: Visit, reader: User, worklist: list[Case]) -> None:
    case = worklist[1]
    page = visit(reader, reverse("case-assign", args=[case.pk]))
    page.get_by_label("Assigned to").select_option(label="Tess Tanner")
    page.get_by_role("button", name="Assign").click()
    expect(page.locator(".messages")).to_contain_text("assigned to Tess Tanner")

    page.goto(reverse("case-edit", args=[case.pk]))
    page.get_by_label("Specimen").fill("Capillary blood")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("main")).to_contain_text("Capillary blood")

    page.goto(reverse("case-void", args=[case.pk]))
    page.get_by_label("Reason").fill("Wrong patient")
    page.get_by_role("button", name="Void the case").click()
    expect(page.locator(".messages")).to_contain_text("The case is void")
    page.goto("/cases/")
    assert numbers(page) == [worklist[0].accession_number, "A-1"]


@pytest.mark.parametrize("width", [1280, 390, 768])
def test_pages_are_accessible_and_fit(
    visit: Visit, reader: User, technologist: User, worklist: list[Case], width: int
) -> None:
    services.void_case(actor=reader, case=worklist[2], reason="Wrong patient")
    case = worklist[1].pk
    paths = [
        "/cases/",
        "/cases/?status=void",
        "/cases/?status=unread&order=waiting&assigned=me",
        "/cases/?status=released",
        "/notifications/",
        reverse("case-edit", args=[case]),
        reverse("case-assign", args=[case]),
        reverse("case-void", args=[case]),
        reverse("case-void", args=[worklist[2].pk]),
    ]
    page = visit(reader, paths[0], width=width)
    faults = []
    for path in paths:
        page.goto(path)
        faults += faults_in_both_themes(page)
    page.goto("/cases/?status=nonsense&confidence_below=-3")
    faults += faults_in_both_themes(page)
    page.get_by_role("searchbox").fill("A-")
    page.get_by_role("searchbox").press("Enter")
    faults += faults_in_both_themes(page)
    assert faults == []
