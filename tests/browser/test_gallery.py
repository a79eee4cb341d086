"""The review in a real browser: two hundred cells without the mouse, and two people at once."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from accounts.models import User
from classifier import pipeline, services
from classifier.models import Case, CellImage, ModelVersion, Review
from tests.browser.conftest import Visit
from tests.factories import prediction_of
from tests.pictures import jpeg_of_cell
from tests.test_gallery import many

pytestmark = pytest.mark.browser

PRESS = """(key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })
)"""

MakeImage = Callable[..., CellImage]


@pytest.fixture
def cells(make_image: MakeImage, model_version: ModelVersion) -> list[CellImage]:
    """Three lymphocytes, the least certain first."""
    images = [make_image("classified") for _ in range(3)]
    for place, image in enumerate(images):
        prediction_of(image, model_version, confidence=0.9 + place / 100)
    return images


def gallery(visit: Visit, user: User, case: Case, **options: object) -> Page:
    page = visit(user, f"/cases/{case.pk}/", **options)
    expect(page.locator(".tile.is-selected")).to_have_count(1)
    return page


def tile(page: Page, image: CellImage) -> Locator:
    return page.locator(f'.tile a[data-image="{image.pk}"]')


def tray_of(page: Page, image: CellImage) -> Locator:
    return page.locator("details.tray").filter(has=tile(page, image))


def expect_stored(page: Page, reviews: int) -> None:
    """What was said has been stored: the browser keeps nothing any more, the table has it."""
    page.wait_for_function("() => !Object.keys(localStorage).some((key) => key.startsWith('review:'))", timeout=60_000)
    assert Review.objects.count() == reviews


# --- The keyboard ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_two_hundred_cells_are_reviewed_without_touching_the_mouse(
    visit: Visit, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    many(case, technologist, model_version, 200)
    page = gallery(visit, technologist, case)
    page.route("**/thumbnail/", lambda route: route.fulfill(status=404))
    page.evaluate(
        f"""() => {{
          const press = {PRESS};
          for (let count = 0; count < 190; count += 1) press("Enter");
          for (let count = 0; count < 8; count += 1) press("6");
        }}"""
    )
    page.keyboard.press("x")
    page.keyboard.press("x")

    expect(page.locator("[data-reviewed]")).to_have_text("200")
    expect_stored(page, 200)
    assert case.images.filter(status="reviewed").count() == 200
    assert Review.objects.filter(verdict="UNUSABLE").count() == 2
    assert Review.objects.filter(verdict="CONFIRMED").count() >= 190
    expect(page.locator(".tile-mark")).to_have_count(0)
    expect(page.locator("#announcer")).to_contain_text("Every cell that is shown here is reviewed")


def test_every_key_says_what_the_help_says(
    visit: Visit, technologist: User, cells: list[CellImage], make_image: MakeImage
) -> None:
    failed = make_image("failed")
    page = gallery(visit, technologist, failed.case)
    expect(tile(page, failed)).to_have_attribute("tabindex", "0")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Neutrophil")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    page.keyboard.press("Enter")
    expect(page.locator("#announcer")).to_contain_text("The model gives no class here")
    page.keyboard.press("3")
    expect(tray_of(page, failed)).to_have_attribute("data-tray-of", "monocyte")
    expect(tile(page, cells[0])).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tile(page, cells[1])).to_be_focused()
    page.keyboard.press("m")
    page.get_by_role("dialog").get_by_role("button", name="Band neutrophil").press("Enter")
    expect(tray_of(page, cells[1])).to_have_attribute("data-tray-of", "band_neutrophil")
    page.keyboard.press("x")
    expect(tray_of(page, cells[2])).to_have_attribute("data-tray-of", "unusable")
    expect_stored(page, 3)
    page.keyboard.press("u")
    expect(tray_of(page, cells[2])).to_have_attribute("data-tray-of", "lymphocyte")
    expect(tile(page, cells[2])).to_be_focused()
    page.keyboard.press("2")
    expect_stored(page, 5)

    said = {review.image_id: review for review in Review.objects.order_by("created_at")}
    assert said[failed.pk].verdict == "MANUAL"
    assert (said[cells[1].pk].verdict, said[cells[1].pk].final_label) == ("CORRECTED", "band_neutrophil")
    assert said[cells[2].pk].verdict == "CONFIRMED"


def test_undo_after_a_reload_takes_back_ones_newest_review_and_nobody_elses(
    visit: Visit, technologist: User, reader: User, cells: list[CellImage]
) -> None:
    for image, person in zip(cells, (technologist, technologist, reader), strict=True):
        services.review_image(actor=person, image=image, verdict="UNUSABLE")
    page = gallery(visit, technologist, cells[0].case)
    for image in (cells[1], cells[0]):
        page.keyboard.press("u")
        expect(tray_of(page, image)).to_have_attribute("data-tray-of", "lymphocyte")
    page.keyboard.press("u")
    expect(page.locator("#announcer")).to_contain_text("no review of yours")
    expect(tray_of(page, cells[2])).to_have_attribute("data-tray-of", "unusable")
    expect_stored(page, 5)


def test_arrows_go_by_rows_and_columns(
    visit: Visit, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    many(case, technologist, model_version, 60)
    page = gallery(visit, technologist, case)
    page.keyboard.press("ArrowRight")
    before = page.locator("a:focus").bounding_box()
    page.keyboard.press("ArrowDown")
    below = page.locator("a:focus").bounding_box()
    page.keyboard.press("ArrowUp")
    after = page.locator("a:focus").bounding_box()

    assert before
    assert below
    assert below["y"] > before["y"]
    assert abs(below["x"] - before["x"]) < 5
    assert after == before


def test_keys_can_be_switched_off(visit: Visit, technologist: User, cells: list[CellImage]) -> None:
    page = gallery(visit, technologist, cells[0].case)
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Use these keys").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("x")
    page.reload()
    page.keyboard.press("x")

    assert not Review.objects.exists()


def test_cell_is_dragged_into_the_tray_of_its_type(visit: Visit, technologist: User, cells: list[CellImage]) -> None:
    page = gallery(visit, technologist, cells[0].case)
    services.review_image(actor=technologist, image=cells[2], verdict="CORRECTED", final_label="monocyte")
    expect(tray_of(page, cells[2])).to_have_attribute("data-tray-of", "monocyte", timeout=10_000)

    tile(page, cells[0]).drag_to(page.locator('[data-tray-of="monocyte"] summary'))

    expect(tray_of(page, cells[0])).to_have_attribute("data-tray-of", "monocyte")
    expect_stored(page, 2)


def test_cell_is_dragged_to_a_type_that_has_no_tray_yet(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    tile(page, cells[1]).hover()
    page.mouse.down()
    page.mouse.move(400, 700, steps=4)
    target = page.locator('.drop-bar [data-slug="band_neutrophil"]')
    expect(target).to_be_visible()
    target.hover()
    page.mouse.up()

    expect(tray_of(page, cells[1])).to_have_attribute("data-tray-of", "band_neutrophil")
    expect(page.locator(".drop-bar")).to_have_count(0)
    expect_stored(page, 1)


def test_panel_shows_the_selected_cell_and_its_buttons_do_what_the_keys_do(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    panel = page.locator("[data-panel-place] [data-panel]")
    expect(panel).to_have_attribute("data-shows", str(cells[0].pk))
    tile(page, cells[1]).click()
    expect(panel).to_have_attribute("data-shows", str(cells[1].pk))
    panel.get_by_role("button", name="Confirm").click()
    expect(tile(page, cells[2])).to_be_focused()
    expect(panel).to_have_attribute("data-shows", str(cells[2].pk))
    expect_stored(page, 1)
    tile(page, cells[1]).click()
    expect(panel.locator("[data-counts]")).to_contain_text("Confirmed by Tess Tanner")
    panel.get_by_role("button", name="Undo").click()
    expect(panel.get_by_role("button", name="Confirm")).to_be_visible()
    expect_stored(page, 2)


def test_picture_is_enlarged_by_a_key_and_closed_by_another(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    expect(page.locator("[data-panel-place] .picture")).to_be_visible()
    assert page.evaluate("() => typeof OpenSeadragon") == "undefined"
    page.keyboard.press("z")
    expect(page.locator(".zoomer[data-open]")).to_be_visible()
    expect(page.locator(".zoomer .box")).to_be_visible()
    page.keyboard.press("h")
    expect(page.locator(".zoomer [data-heat]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".zoomer")).to_have_count(0)
    page.keyboard.press("Enter")
    expect_stored(page, 1)


# --- Two people at once ----------------------------------------------------------------------------------------


def test_two_people_see_each_others_reviews(
    visit: Visit, technologist: User, reader: User, cells: list[CellImage]
) -> None:
    one = gallery(visit, technologist, cells[0].case)
    other = gallery(visit, reader, cells[0].case)
    one.keyboard.press("3")
    expect(tray_of(one, cells[0])).to_have_attribute("data-tray-of", "monocyte")

    expect(tray_of(other, cells[0])).to_have_attribute("data-tray-of", "monocyte", timeout=10_000)
    expect(tile(other, cells[0])).to_contain_text("TT")
    expect(other.locator("[data-reviewed]")).to_have_text("1")
    expect(other.locator("[data-ribbon]")).to_have_text("In review")


@pytest.mark.parametrize("button", ["Keep the other's", "Use mine"])
def test_two_people_who_say_different_things_are_asked(
    button: str, visit: Visit, technologist: User, reader: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    page.route("**/changes/**", lambda route: route.abort())
    services.review_image(actor=reader, image=cells[0], verdict="CORRECTED", final_label="basophil")
    page.keyboard.press("3")

    question = page.get_by_role("alert").filter(has_text="Ruth Reyes has reviewed this image meanwhile")
    expect(question).to_contain_text("Yours: Monocyte")
    expect(tile(page, cells[0])).to_contain_text("Basophil")
    assert Review.objects.count() == 1
    question.get_by_role("button", name=button).click()
    expect_stored(page, 2 if button == "Use mine" else 1)
    expect(tile(page, cells[0])).to_contain_text("Monocyte" if button == "Use mine" else "Basophil")


def test_new_images_appear_and_are_classified_before_ones_eyes(
    visit: Visit, technologist: User, cells: list[CellImage], make_image: MakeImage, smear: bytes
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    image = make_image(content=smear)
    expect(tray_of(page, image)).to_have_attribute("data-tray-of", "waiting", timeout=30_000)
    pipeline.classify_queued()
    expect(tile(page, image)).to_have_attribute("data-status", "classified", timeout=30_000)
    expect(page.locator("[data-images]")).to_have_text("4", timeout=30_000)


def test_pictures_dropped_on_the_case_become_tiles_and_a_bad_file_says_why(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    files: list[FilePayload] = [
        {"name": "good.jpg", "mimeType": "image/jpeg", "buffer": jpeg_of_cell(1)},
        {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"no picture at all"},
    ]
    page.get_by_role("link", name="Upload", exact=True).click()
    page.locator("#files").set_input_files(files)

    expect(page.locator('[data-tray-of="waiting"] .tile')).to_have_count(1)
    expect(page.locator("[data-refused]")).to_contain_text("notes.jpg")
    expect(page.locator("[data-images]")).to_have_text("4")


# --- Elsewhere -------------------------------------------------------------------------------------------------


def test_phone_shows_one_part_at_a_time_and_a_cell_leads_to_its_page(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case, width=390)
    expect(page.locator(".case-side")).to_be_hidden()
    tabs = page.get_by_role("navigation", name="Parts of the case")
    tabs.get_by_role("link", name="Differential").click()
    expect(page.get_by_role("heading", name="Differential")).to_be_visible()
    expect(page.locator(".case-cells")).to_be_hidden()
    tabs.get_by_role("link", name="History").click()
    expect(page.locator(".case-history")).to_contain_text("opened the case")
    tabs.get_by_role("link", name="Cells").click()
    tile(page, cells[0]).click()
    expect(page).to_have_url(re.compile(f"/images/{cells[0].pk}/"))


def test_image_page_is_reviewed_in_place(visit: Visit, technologist: User, cells: list[CellImage]) -> None:
    page = visit(technologist, f"/images/{cells[0].pk}/")
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("[data-counts]")).to_contain_text("Confirmed by Tess Tanner")
    page.locator("summary", has_text="It is something else").click()
    page.get_by_role("button", name="Basophil").click()
    expect(page.locator("[data-counts]")).to_contain_text("Basophil")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("[data-counts]")).to_contain_text("Confirmed by Tess Tanner")
    expect_stored(page, 3)


def test_without_scripts_a_cell_is_reviewed_by_plain_forms(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = visit(technologist, f"/cases/{cells[0].case_id}/", java_script_enabled=False)
    expect(page.get_by_role("heading", name="Differential", exact=True)).to_be_visible()
    tile(page, cells[0]).click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator(".message-success")).to_contain_text("Confirmed")
    expect(page.locator("[data-counts]")).to_contain_text("Confirmed by Tess Tanner")


def test_page_of_many_cells_never_freezes(
    visit: Visit, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    many(case, technologist, model_version, 700)
    page = gallery(visit, technologist, case)
    expect(page.get_by_text("Show all").first).to_be_visible()
    slowest = page.evaluate(
        f"""() => {{
          const press = {PRESS};
          let slowest = 0;
          for (let count = 0; count < 40; count += 1) {{
            const started = performance.now();
            press(count % 2 ? "ArrowRight" : "ArrowDown");
            slowest = Math.max(slowest, performance.now() - started);
          }}
          return slowest;
        }}"""
    )
    assert slowest < 250
