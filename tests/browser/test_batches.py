"""Batches in a browser: handed in, asked about, started, watched, validated; with and without script, on a phone."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from accounts.models import User
from classifier import batch_steps, pipeline
from classifier.models import Batch, BatchState, ModelVersion
from tests.browser.conftest import Visit
from tests.browser.test_pages import faults_of
from tests.handing_in import check_all, checked
from tests.test_validation_report import answered
from tests.zips import cells, zip_of

pytestmark = pytest.mark.browser
Sizes = pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark"), (768, "light")])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "slide 7.zip"
    file.write_bytes(zip_of({**cells(6), "notes.txt": b"no picture", "<b>.txt": b"none either"}))
    return file


def test_archive_is_handed_in_asked_about_started_and_watched_to_its_end(
    visit: Visit, technologist: User, model_version: ModelVersion, archive: Path
) -> None:
    page = visit(technologist, "/batches/")
    page.get_by_label("Accession number").fill("S-7")
    page.get_by_label("ZIP archive").set_input_files(archive)
    page.get_by_role("button", name="Hand in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Batch for S-7")
    expect(page.locator(".ribbon")).to_have_text("Checking")

    check_all()
    expect(page.locator(".ribbon")).to_have_text("Waits to be started")
    expect(page.locator(".batch-question")).to_contain_text("6 pictures are accepted, 2 files refused")
    page.get_by_text("This is not a picture that can be read.").click()
    expect(page.get_by_text("notes.txt")).to_be_visible()
    expect(page.get_by_text("<b>.txt")).to_be_visible()

    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("The batch is started.")).to_be_visible()
    page.get_by_text("This is not a picture that can be read.").click()
    pipeline.classify_queued()
    expect(page.locator(".ribbon")).to_have_text("Finished")
    expect(page.get_by_text("6 of 6")).to_be_visible()
    expect(page.get_by_text("notes.txt")).to_be_visible()  # what was open stays open


def test_running_batch_is_paused_resumed_and_cancelled(visit: Visit, technologist: User) -> None:
    batch = checked(technologist, cells(4), accession_number="S-7")
    page = visit(technologist, f"/batches/{batch.pk}/")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".ribbon")).to_have_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".ribbon")).to_have_text("Running")
    page.get_by_text("Cancel the batch").click()
    page.get_by_role("button", name="Cancel it now").click()
    expect(page.locator(".ribbon")).to_have_text("Cancelled")
    assert Batch.objects.get().state == BatchState.CANCELLED


def test_refusal_of_an_archive_is_said_beside_it_and_the_page_stays(
    visit: Visit, technologist: User, tmp_path: Path
) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(b"no archive")
    page = visit(technologist, "/batches/")
    page.get_by_label("Accession number").fill("S-7")
    page.get_by_label("ZIP archive").set_input_files(file)
    page.get_by_role("button", name="Hand in").click()
    expect(page.get_by_role("alert").filter(has_text="This is not a ZIP archive")).to_be_visible()
    expect(page.get_by_label("Accession number")).to_have_value("S-7")
    expect(page.get_by_role("button", name="Hand in")).to_be_enabled()


def test_everything_works_without_script(
    visit: Visit, technologist: User, model_version: ModelVersion, archive: Path
) -> None:
    page = visit(technologist, "/batches/", java_script_enabled=False)
    page.get_by_label("Accession number").fill("S-7")
    page.get_by_label("ZIP archive").set_input_files(archive)
    page.get_by_role("button", name="Hand in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Batch for S-7")
    check_all()
    page.reload()
    page.get_by_role("button", name="Start").click()
    pipeline.classify_queued()
    page.reload()
    expect(page.locator(".ribbon")).to_have_text("Finished")


def test_list_moves_by_itself(visit: Visit, technologist: User, model_version: ModelVersion) -> None:
    checked(technologist, cells(3), accession_number="S-7")
    page = visit(technologist, "/batches/")
    expect(page.get_by_text("0 of 3")).to_be_visible()
    pipeline.classify_queued()
    expect(page.get_by_text("3 of 3")).to_be_visible()
    expect(page.locator(".ribbon")).to_have_text("Finished")


@Sizes
def test_pages_of_batches_are_without_fault(
    visit: Visit, technologist: User, model_version: ModelVersion, width: int, theme: str
) -> None:
    labels = "file,label\n" + "".join(f"cell-{at:04}.jpg,{name}\n" for at, name in enumerate(["ig", "monocyte"] * 3))
    files = {"labels.csv": labels.encode(), **cells(6), "long/" + "name-" * 40 + ".txt": b"x"}
    batch = checked(technologist, files, accession_number="A-" + "LONG-" * 8)
    answered(batch, model_version, ["immature_granulocyte", "monocyte", None, "monocyte", "neutrophil", "monocyte"])
    batch_steps.finish_batches()
    waiting = checked(technologist, cells(2, first=50), asks_before_start=True)
    assert faults_of(visit(technologist, "/batches/", width=width, theme=theme)) == []
    for path in (f"/batches/{batch.pk}/", f"/batches/{waiting.pk}/"):
        page = visit(technologist, path, width=width, theme=theme)
        for closed in page.locator("details.more").all():
            closed.locator("summary").click()
        assert faults_of(page) == []
