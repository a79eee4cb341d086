"""Reports in a browser: they fit and are accessible, and a reader signs and corrects by keyboard alone."""

import io
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from pypdf import PdfReader

from accounts.models import User
from classifier.models import Case, ModelVersion, Report
from classifier.services.reports import amend_report, release_report
from tests.browser.conftest import Visit
from tests.browser.test_pages import faults_of
from tests.conftest import PASSWORD
from tests.factories import image_in_state, prediction_of
from tests.signing import ready_to_sign

pytestmark = pytest.mark.browser

LONG = "A long remark about a smear that goes on and on, with a-word-that-does-not-break-" + "x" * 60 + ". "


@pytest.fixture
def reviewed_case(case: Case, technologist: User, model_version: ModelVersion) -> Case:
    return ready_to_sign(case, technologist=technologist, model_version=model_version)


def sign(case: Case, reader: User, comment: str = "") -> Report:
    return release_report(actor=reader, case=case, password=PASSWORD, comment=comment)


def test_every_report_page_is_accessible_and_fits(
    visit: Visit, reader: User, technologist: User, reviewed_case: Case, model_version: ModelVersion
) -> None:
    sign(reviewed_case, reader, LONG * 4)
    amend_report(actor=reader, case=reviewed_case, kind="corrected", reason=LONG)
    image_in_state("reviewed", case=reviewed_case, uploaded_by=technologist, final_label="eosinophil")
    sign(reviewed_case, reader, LONG)
    base = f"/cases/{reviewed_case.pk}"
    pages = [visit(reader, f"{base}/reports/", width=width, theme=theme) for width, theme in looks()]
    faults = [
        fault for page in pages for path in ("/reports/2/", "/reports/1/", "/amend/") for fault in at(page, base + path)
    ]
    amend_report(actor=reader, case=reviewed_case, kind="amended", reason=LONG)
    faults += [fault for page in pages for path in ("/reports/2/", "/release/") for fault in at(page, base + path)]
    prediction_of(image_in_state("classified", case=reviewed_case, uploaded_by=technologist), model_version)
    faults += [fault for page in pages for fault in at(page, base + "/release/")]
    assert faults == []


def looks() -> list[tuple[int, str]]:
    return [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


def at(page: Page, path: str) -> list[str]:
    page.goto(path)
    return faults_of(page)


def test_reader_signs_and_corrects_by_keyboard_alone(
    visit: Visit, reader: User, technologist: User, reviewed_case: Case
) -> None:
    page = visit(reader, f"/cases/{reviewed_case.pk}/release/")
    page.get_by_label("Comment").focus()
    page.keyboard.type("All as expected.")
    page.keyboard.press("Tab")
    page.keyboard.type("not my password")
    page.keyboard.press("Enter")
    expect(page.get_by_text("That is not your password")).to_be_visible()
    expect(page.get_by_label("Comment")).to_have_value("All as expected.")
    page.get_by_label("Your password").focus()
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator(".paper .report-ribbon")).to_have_text("Released, version 1, in force")

    page.get_by_role("link", name="Amend or correct").press("Enter")
    page.get_by_label("Correct: a released result was wrong").press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("One cell was overlooked.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/cases/{reviewed_case.pk}/")
    image_in_state("reviewed", case=reviewed_case, uploaded_by=technologist)

    page.goto(f"/cases/{reviewed_case.pk}/reports/")
    expect(page.locator(".report-standing")).to_contain_text("being amended")
    page.get_by_role("link", name="Sign the new version").press("Enter")
    page.get_by_label("Your password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator(".paper .report-ribbon")).to_have_text("Corrected, version 2, in force")
    expect(page.get_by_role("heading", name="What changed since version 1")).to_be_visible()
    page.get_by_role("navigation", name="Versions").get_by_role("link", name="Version 1").press("Enter")
    expect(page.locator(".report-standing")).to_contain_text("Do not act on this one")


def test_pages_work_without_script_and_the_pdf_comes_down(
    visit: Visit, reader: User, reviewed_case: Case, tmp_path: Path
) -> None:
    page = visit(reader, f"/cases/{reviewed_case.pk}/release/", java_script_enabled=False)
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Sign and release").click()
    expect(page.locator(".paper .report-ribbon")).to_have_text("Released, version 1, in force")
    with page.expect_download() as download:
        page.get_by_role("link", name="PDF").click()
    report = Report.objects.get()
    assert download.value.suggested_filename == f"report-{report.pk}-v1.pdf"
    download.value.save_as(tmp_path / "report.pdf")
    text = PdfReader(io.BytesIO((tmp_path / "report.pdf").read_bytes())).pages[0].extract_text()
    assert "Released, version 1, in force" in text


def test_paper_prints_without_what_surrounds_it(visit: Visit, reader: User, reviewed_case: Case) -> None:
    sign(reviewed_case, reader)
    page = visit(reader, f"/cases/{reviewed_case.pk}/reports/1/")
    page.emulate_media(media="print")
    expect(page.locator(".paper")).to_be_visible()
    for around in (".report-versions", ".report-take", ".top"):
        expect(page.locator(around)).to_be_hidden()
    text = " ".join(sheet.extract_text() for sheet in PdfReader(io.BytesIO(page.pdf())).pages)
    assert "White-cell differential" in text
    assert "Take away" not in text
