"""The blind re-read and the emergency access in a browser: keyboard, without a script, narrow and wide."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from classifier import services
from classifier.models import BlindReading, BlindReread, CellImage, EmergencyAccess, ModelVersion
from tests.browser.conftest import Visit
from tests.browser.test_pages import faults_in_both_themes, faults_of
from tests.conftest import PASSWORD
from tests.factories import prediction_of

pytestmark = pytest.mark.browser
MakeImage = Callable[..., CellImage]


@pytest.fixture
def reread(
    make_image: MakeImage, model_version: ModelVersion, technologist: User, reader: User, auditor: User
) -> BlindReread:
    for _ in range(3):
        image = make_image("classified")
        prediction_of(image, model_version)
        services.review_image(actor=technologist, image=image, verdict="CONFIRMED")
    return services.draw_reread(actor=auditor, reader=reader, size=3)


def wait_for_progress(page: Page, text: str) -> None:
    """A page that shows its progress hears the keys only once its script has run, which is before `load`."""
    expect(page.get_by_text(text)).to_be_visible()
    page.wait_for_load_state("load")


def said() -> list[str]:
    return [each.label or "unusable" for each in BlindReading.objects.order_by("cell__position")]


def test_reader_reads_by_keyboard_alone_and_a_digit_saves_nothing(
    visit: Visit, reader: User, reread: BlindReread
) -> None:
    page = visit(reader, "/")
    page.get_by_role("link", name="Read them").click()
    wait_for_progress(page, "0 of 3 read")
    names = page.locator(".reread-type:has(kbd)")
    third = names.nth(2).locator("input").get_attribute("value")

    page.keyboard.press("1")
    page.keyboard.press("3")
    assert said() == []
    page.keyboard.press("Enter")
    wait_for_progress(page, "1 of 3 read")
    assert said() == [third]
    page.keyboard.press("Enter")  # Nothing is chosen: the browser asks for it.
    wait_for_progress(page, "1 of 3 read")
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    wait_for_progress(page, "2 of 3 read")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Agreement")).to_be_visible()
    assert len(said()) == 3
    assert said()[1] == "unusable"


def test_reader_reads_without_a_script(visit: Visit, reader: User, reread: BlindReread) -> None:
    page = visit(reader, f"/rereads/{reread.pk}/", java_script_enabled=False)
    page.get_by_role("radio", name="Monocyte").check()
    page.get_by_role("button", name="Save, next cell").click()

    expect(page.get_by_text("1 of 3 read")).to_be_visible()
    assert said() == ["monocyte"]


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_accessible_and_fit(
    visit: Visit, reader: User, auditor: User, reread: BlindReread, width: int
) -> None:
    page = visit(reader, f"/rereads/{reread.pk}/", width=width)
    page.keyboard.press("2")
    faults = faults_in_both_themes(page)
    cell = reread.cells.select_related("reread").order_by("position")[0]
    services.read_blind(actor=reader, cell=cell, label="monocyte")
    page.goto("/rereads/")
    faults += faults_in_both_themes(page)
    other = visit(auditor, "/rereads/", width=width)
    faults += faults_in_both_themes(other)
    other.goto(f"/rereads/{reread.pk}/")
    faults += faults_in_both_themes(other)
    assert faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_case_is_opened_in_an_emergency_and_says_so_on_every_page(
    visit: Visit, stranger: User, auditor: User, reread: BlindReread, width: int
) -> None:
    page = visit(stranger, "/emergency/", width=width)
    faults = faults_of(page)
    fill(page, laboratory="Eastside")
    expect(page.get_by_text("There is no case of that laboratory")).to_be_visible()
    faults += faults_of(page)
    fill(page, laboratory="Northside")

    banner = page.get_by_role("alert", name="Emergency access")
    expect(banner).to_contain_text("Emergency access to a case of Northside until")
    access = EmergencyAccess.objects.get()
    faults += faults_of(page)
    image = CellImage.objects.filter(case=access.case).first()
    assert image is not None
    page.goto(f"/images/{image.pk}/")
    expect(banner).to_be_visible()
    other = visit(auditor, "/emergency/", width=width)
    expect(other.get_by_text("Stan Stone, Southside")).to_be_visible()
    assert faults + faults_of(other) == []


def fill(page: Page, *, laboratory: str) -> None:
    page.get_by_label("Laboratory", exact=True).fill(laboratory)
    page.get_by_label("Accession number").fill("A-1001")
    page.get_by_label("Reason").fill("Bleeding in theatre")
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Open the case").click()
