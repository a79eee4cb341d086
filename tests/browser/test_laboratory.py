"""Settings of a laboratory, a trial, and the installed application, in a browser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from classifier import pipeline, services, tasks
from classifier.laboratory_settings import settings_of, start_cell_types
from classifier.model_registry import register_bundle
from classifier.models import CellImage, LaboratorySettings, ModelTrial, ModelVersion, TrialPrediction
from ml.model_card import ARTIFACTS, shipped_bundle
from tests.browser.conftest import CHROMIUM, FLAGS, Visit, sign_in_with_cookie
from tests.browser.test_pages import faults_in_both_themes
from tests.conftest import PASSWORD
from tests.factories import prediction_of
from tests.pictures import jpeg_of_cell

pytestmark = pytest.mark.browser


def saved(admin: User) -> LaboratorySettings:
    return settings_of(admin.laboratory_id)  # type: ignore[arg-type]


@pytest.fixture
def other_version(model_version: ModelVersion) -> ModelVersion:
    bundle = next(path for path in sorted(ARTIFACTS.glob("hematovision-*")) if path != shipped_bundle())
    return register_bundle(bundle)


@pytest.fixture
def finished_trial(
    reader: User, make_image: Callable[..., CellImage], model_version: ModelVersion, other_version: ModelVersion
) -> ModelTrial:
    images = [make_image("classified", name=f"{'a-long-file-name-' * 4}{place}.jpg") for place in range(3)]
    for image in images:
        prediction_of(image, model_version)
    services.review_image(actor=reader, image=images[0], verdict="CONFIRMED")
    trial = services.try_model(actor=reader, case=images[0].case, model_version=other_version)
    for image, label in zip(images, ("lymphocyte", "immature_granulocyte", ""), strict=True):
        TrialPrediction.objects.create(
            trial=trial, image=image, label=label, confidence=0.9, conformal_set=["monocyte"], abstained=not label
        )
    ModelTrial.objects.update(finished_at=timezone.now())
    return trial


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_of_the_laboratory_are_accessible_and_fit(
    visit: Visit, lab_admin: User, technologist: User, finished_trial: ModelTrial, width: int
) -> None:
    for count in (50, 60):
        services.save_laboratory_settings(
            actor=lab_admin,
            target_count=count,
            uploader_may_release=True,
            abstain_below=0.95,
            time_zone="America/Argentina/ComodRivadavia",
            cell_types=start_cell_types(),
        )
    faults: list[str] = []
    for user in (lab_admin, technologist):
        page = visit(user, "/laboratory/", width=width)
        faults += faults_in_both_themes(page)
        for path in (f"/cases/{finished_trial.case_id}/trial/", "/trials/"):
            page.goto(path)
            faults += faults_in_both_themes(page)
    page = visit(lab_admin, "/laboratory/", width=width)
    page.get_by_label("Monocyte, lower limit in percent").fill("9")
    page.get_by_role("button", name="Save as a new version").click()
    expect(page.get_by_role("alert").filter(has_text="Not saved")).to_be_visible()
    faults += faults_in_both_themes(page)
    assert faults == []


def order_on(page: Page) -> list[str]:
    return [row.get_attribute("data-slug") or "" for row in page.locator("[data-rows] tr").all()]


def test_rows_move_at_once_by_keyboard_and_are_saved_in_that_order(visit: Visit, lab_admin: User) -> None:
    page = visit(lab_admin, "/laboratory/")
    page.get_by_role("button", name="Move Monocyte up").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert order_on(page)[:3] == ["monocyte", "neutrophil", "lymphocyte"]
    expect(page.get_by_role("button", name="Move Monocyte down")).to_be_focused()
    expect(page.locator("#announcer")).to_contain_text("Monocyte is on place 1 of 14")
    expect(page.locator("[data-rows] tr").first.locator("kbd")).to_have_text("1")
    assert page.locator("[data-rows] kbd").all_inner_texts() == [str(key) for key in range(1, 10)]

    page.get_by_role("button", name="Save as a new version").click()

    expect(page.get_by_role("status").filter(has_text="version 1 and count from now on")).to_be_visible()
    assert [rule["slug"] for rule in saved(lab_admin).cell_types][:2] == ["monocyte", "neutrophil"]


def test_enter_in_a_field_saves(visit: Visit, lab_admin: User) -> None:
    page = visit(lab_admin, "/laboratory/")
    page.get_by_label("Target count").fill("250")
    page.keyboard.press("Enter")

    expect(page.get_by_text("version 1 and count from now on")).to_be_visible()
    assert (saved(lab_admin).target_count, saved(lab_admin).cell_types) == (250, start_cell_types())


def test_form_works_without_scripts(visit: Visit, lab_admin: User) -> None:
    page = visit(lab_admin, "/laboratory/", java_script_enabled=False)
    page.get_by_label("Target count").fill("77")
    page.get_by_role("button", name="Move Lymphocyte up").click()
    expect(page.get_by_text("Lymphocyte is on place 1 now. Nothing is saved yet.")).to_be_visible()
    page.get_by_role("button", name="Save as a new version").click()

    expect(page.get_by_text("version 1 and count from now on")).to_be_visible()
    assert saved(lab_admin).target_count == 77
    assert saved(lab_admin).cell_types[0]["slug"] == "lymphocyte"


def test_trial_shows_its_progress_and_outcome_by_itself(
    visit: Visit, reader: User, make_image: Callable[..., CellImage], other_version: ModelVersion
) -> None:
    image = make_image()
    pipeline.classify_queued()
    page = visit(reader, f"/cases/{image.case_id}/trial/")
    page.get_by_role("button", name="Start the trial").click()
    expect(page.get_by_text("0 of 1 images tried")).to_be_visible()

    tasks.classify_queued()

    expect(page.locator(".trial-changed")).to_contain_text("of 1 image would be something else", timeout=20_000)
    expect(page.locator("#announcer")).to_have_text("The trial is finished.")


def test_camera_is_offered_on_a_phone_and_its_picture_is_uploaded(visit: Visit, technologist: User) -> None:
    phone = {"has_touch": True, "is_mobile": True}
    page = visit(technologist, "/", width=390, **phone)
    camera = page.locator("#camera")
    expect(page.get_by_text("Take a picture")).to_be_visible()
    assert (camera.get_attribute("accept"), camera.get_attribute("capture")) == ("image/*", "environment")

    camera.set_input_files({"name": "image.jpg", "mimeType": "image/jpeg", "buffer": jpeg_of_cell(1)})

    expect(page.locator("ul[data-cards] .card")).to_have_count(1, timeout=20_000)
    assert CellImage.objects.get().uploaded_by == technologist
    expect(visit(technologist, "/").get_by_text("Take a picture")).to_be_hidden()


def test_browser_can_install_the_application(
    browser: Browser, live_server: LiveServer, technologist: User, tmp_path: Path
) -> None:
    """In a profile of its own: nothing is installed from a private window."""
    options: dict[str, Any] = {"executable_path": str(CHROMIUM), "args": list(FLAGS), "base_url": live_server.url}
    context = browser.browser_type.launch_persistent_context(str(tmp_path / "profile"), **options)
    try:
        sign_in_with_cookie(context, technologist, live_server.url)
        page = context.new_page()
        page.goto("/")
        chromium = context.new_cdp_session(page)
        manifest = chromium.send("Page.getAppManifest")
        assert manifest["errors"] == []
        assert json.loads(manifest["data"])["short_name"] == "HematoVision"
        assert chromium.send("Page.getInstallabilityErrors")["installabilityErrors"] == []
    finally:
        context.close()


PRINTED_AWAY = "main nav, .top, .drop, main form, main button, main .button, progress, .messages, .skip"


def test_printed_page_is_black_on_white_without_controls(
    visit: Visit, technologist: User, finished_trial: ModelTrial
) -> None:
    for path in ("/cases/", f"/cases/{finished_trial.case_id}/"):
        page = visit(technologist, path, theme="dark")
        page.emulate_media(media="print", color_scheme="dark")
        page.wait_for_load_state("networkidle")
        shown = [each for each in page.locator(PRINTED_AWAY).all() if each.is_visible()]
        assert [each.evaluate("(node) => node.outerHTML.slice(0, 80)") for each in shown] == [], path
        ground = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        ink = page.evaluate("() => getComputedStyle(document.querySelector('h1')).color")
        assert (ground, ink) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)"), path
        expect(page.locator("main h1")).to_be_visible()
    expect(page.get_by_text("AI suggestion - not verified").first).to_be_visible()


def test_printed_report_keeps_its_standing_its_signature_and_its_limits(
    visit: Visit, lab_admin: User, reader: User, make_image: Callable[..., CellImage]
) -> None:
    services.save_laboratory_settings(
        actor=lab_admin,
        target_count=1,
        uploader_may_release=True,
        abstain_below=None,
        time_zone="UTC",
        cell_types=start_cell_types(),
    )
    case = make_image("reviewed", reader=reader).case
    services.release_report(actor=reader, case=case, password=PASSWORD)

    page = visit(reader, f"/cases/{case.pk}/reports/1/", width=703, theme="dark")
    page.emulate_media(media="print", color_scheme="dark")

    paper = page.locator("main")
    for kept in ("Released, version 1", "verified by Ruth Reyes", "cover sampling only", "not a medical device"):
        expect(paper.get_by_text(kept).first).to_be_visible()
    expect(paper.locator("table th", has_text="95 % limits")).to_be_visible()
    expect(paper.get_by_role("link", name="PDF")).to_be_hidden()
    assert len(page.pdf(format="A4")) > 1000
