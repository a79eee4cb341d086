"""Dropping pictures: each file has its own outcome, results appear by themselves, and nothing gets lost."""

import re
from collections.abc import Callable

import pytest
from django.conf import settings
from playwright.sync_api import FilePayload, Page, expect

from accounts.models import User
from classifier import pipeline
from classifier.models import Case, CellImage, ModelVersion
from tests.browser.conftest import Visit, sign_in_with_cookie
from tests.conftest import PASSWORD
from tests.pictures import jpeg_of_cell

pytestmark = pytest.mark.browser

DROP = """([zone, names, contents]) => {
  const transfer = new DataTransfer();
  names.forEach((name, place) => transfer.items.add(new File([Uint8Array.from(contents[place])], name)));
  zone.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def picture(name: str, seed: int) -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": jpeg_of_cell(seed)}


def drop(page: Page, files: list[FilePayload]) -> None:
    zone = page.query_selector("form[data-upload]")
    page.evaluate(DROP, [zone, [each["name"] for each in files], [list(each["buffer"]) for each in files]])


def test_a_person_signs_in_with_address_and_password(visit: Visit, technologist: User) -> None:
    page = visit(None, "/")
    expect(page).to_have_url(re.compile("/accounts/login/"))
    page.get_by_label("Email").fill(technologist.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Drop cell images here")).to_be_visible()
    page.locator("details.menu summary").click()
    expect(page.locator(".menu-body")).to_contain_text("Northside")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/accounts/login/"))


def test_one_picture_opens_its_result_in_place(
    visit: Visit, technologist: User, model_version: ModelVersion, smear: bytes
) -> None:
    page = visit(technologist)
    page.locator("#files").set_input_files({"name": "one.jpg", "mimeType": "image/jpeg", "buffer": smear})
    panel = page.locator("[data-result] [data-panel]")
    expect(panel.locator(".verdict-class")).to_contain_text("Queued")
    expect(page.locator("ul[data-cards] .card")).to_contain_text("Queued")
    expect(page.locator("[data-queue-place]")).to_contain_text("No worker is running")

    pipeline.classify_queued()

    expect(panel).to_have_attribute("data-status", "classified")
    prediction = CellImage.objects.get().latest_prediction
    assert prediction is not None
    said = prediction.get_label_display() if prediction.label else "Unidentified"
    expect(panel.locator(".verdict-class")).to_contain_text(said)
    expect(panel).to_contain_text("AI suggestion - not verified. For trained reviewers; not for diagnosis.")
    expect(panel.locator(".bars li")).to_have_count(len(model_version.labels))
    expect(panel).to_contain_text(model_version.sha256[:12])
    expect(page.locator("ul[data-cards] .card")).to_contain_text(said)
    assert page.locator("[data-waiting]").count() == 0


def test_dropped_files_have_each_their_own_outcome_and_share_one_quick_case(visit: Visit, technologist: User) -> None:
    page = visit(technologist)
    bad: FilePayload = {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"no picture at all"}
    drop(page, [picture("first.jpg", 1), bad, picture("second.jpg", 2)])
    refusal = page.locator("[data-refused]")
    expect(refusal).to_contain_text("notes.jpg")
    expect(refusal.locator(".code")).to_have_text("not_an_image")
    expect(page.locator("ul[data-cards] .card")).to_have_count(2)
    expect(page.locator("[data-uploads-summary]")).to_contain_text("2 of 3 accepted, 1 refused")
    assert Case.objects.count() == 1
    drop(page, [picture("third.jpg", 3)])
    expect(page.locator("ul[data-cards] .card")).to_have_count(3)
    expect(refusal).to_be_visible()
    assert Case.objects.count() == 2


def test_pictures_go_to_the_case_that_was_chosen(visit: Visit, technologist: User, case: Case) -> None:
    page = visit(technologist)
    page.get_by_label("Add to").select_option(label=case.accession_number)
    page.locator("#files").set_input_files([picture("a.jpg", 1), picture("b.jpg", 2)])
    expect(page.locator("ul[data-cards] .card")).to_have_count(2)
    assert case.images.count() == 2
    page.get_by_label("Add to").select_option(label=case.accession_number)
    page.locator("#files").set_input_files(picture("again.jpg", 1))
    expect(page.locator(".card").filter(has_text="in this case already")).to_have_count(1)
    expect(page.locator("ul[data-cards] .card")).to_have_count(2)


def test_a_card_turns_by_itself_on_the_case_page(
    visit: Visit, technologist: User, model_version: ModelVersion, make_image: Callable[..., CellImage], smear: bytes
) -> None:
    image = make_image(content=smear)
    page = visit(technologist, f"/cases/{image.case_id}/")
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    card = page.locator(f'[data-image="{image.pk}"]')
    expect(card).to_have_attribute("data-status", "queued")
    pipeline.classify_queued()
    expect(card).to_have_attribute("data-status", "classified")
    page.wait_for_load_state("networkidle")
    assert [url for url in loaded if url.endswith("/file/")] == [], "the picture was loaded a second time"


def test_a_network_failure_keeps_the_file_for_another_try(visit: Visit, technologist: User) -> None:
    page = visit(technologist)
    page.route("**/uploads/", lambda route: route.abort(), times=1)
    page.locator("#files").set_input_files(picture("cell.jpg", 1))
    row = page.locator(".upload.unsent")
    expect(row).to_contain_text("The network failed")
    row.get_by_role("button", name="Retry cell.jpg").click()
    expect(page.locator("ul[data-cards] .card")).to_have_count(1)
    expect(row).to_have_count(0)


def test_an_unreachable_server_is_named_and_found_again(
    visit: Visit, technologist: User, make_image: Callable[..., CellImage]
) -> None:
    image = make_image()
    page = visit(technologist, f"/images/{image.pk}/")
    page.route("**/images/cards/**", lambda route: route.abort())
    line = page.locator("[data-queue-place]")
    expect(line).to_contain_text("The server can't be reached")
    page.unroute_all()
    expect(line).to_contain_text("1 waiting", timeout=10_000)


def test_a_session_that_ends_during_an_upload_loses_nothing(visit: Visit, technologist: User, reader: User) -> None:
    page = visit(technologist)
    page.context.clear_cookies(name=settings.SESSION_COOKIE_NAME)
    page.locator("#files").set_input_files([picture(f"{seed}.jpg", seed) for seed in range(5)])
    notice = page.locator("[data-signed-out]")
    expect(notice).to_contain_text("Nothing is lost")
    expect(page.locator(".upload")).to_have_count(5)

    for address, cards in ((reader.email, 0), (technologist.email, 5)):
        with page.context.expect_page() as opened:
            notice.get_by_role("link", name="Sign in").click()
        other = opened.value
        if other.locator("details.menu").count():
            other.locator("details.menu summary").click()
            other.get_by_role("button", name="Sign out").click()
        other.get_by_label("Email").fill(address)
        other.get_by_label("Password").fill(PASSWORD)
        other.get_by_role("main").get_by_role("button", name="Sign in").click()
        expect(other.get_by_text("Drop cell images here")).to_be_visible()
        if address == reader.email:
            notice.get_by_role("button", name="Go on").click()
            expect(notice).to_contain_text("Somebody else is signed in")
            expect(page.locator(".upload")).to_have_count(5)
            other.close()
        else:
            other.close()
            page.bring_to_front()
            if notice.count():
                notice.get_by_role("button", name="Go on").click()
        expect(page.locator("ul[data-cards] .card")).to_have_count(cards)
    assert {image.uploaded_by for image in CellImage.objects.all()} == {technologist}
    assert Case.objects.count() == 1


def test_files_wait_while_somebody_else_is_signed_in(
    visit: Visit, technologist: User, reader: User, case: Case
) -> None:
    page = visit(technologist, f"/cases/{case.pk}/")
    url = page.url.split("/cases/")[0]
    sign_in_with_cookie(page.context, reader, url)
    page.locator("#files").set_input_files([picture("a.jpg", 1), picture("b.jpg", 2)])
    notice = page.locator("[data-signed-out]")
    expect(notice).to_be_visible()
    expect(page.locator(".upload")).to_have_count(2)
    expect(page.locator("[data-refused]")).to_have_count(0)
    assert not CellImage.objects.exists()

    sign_in_with_cookie(page.context, technologist, url)
    notice.get_by_role("button", name="Go on").click()
    expect(page.locator('[data-tray-of="waiting"] .tile')).to_have_count(2)
    assert {image.uploaded_by for image in CellImage.objects.all()} == {technologist}


def test_a_thousand_files_do_not_freeze_the_page(visit: Visit, technologist: User) -> None:
    """The server's part is played: what is measured is how long the page itself is ever busy."""
    page = visit(technologist)
    page.evaluate(
        """() => {
          const refusal = `<li class="upload refused" data-refused><p><strong class="upload-name"></strong></p></li>`;
          XMLHttpRequest.prototype.send = function () {
            Object.defineProperties(this, { status: { value: 400 }, responseText: { value: refusal } });
            setTimeout(() => this.onload(), 5);
          };
          window.longest = 0;
          let last = performance.now();
          const beat = () => {
            window.longest = Math.max(window.longest, performance.now() - last);
            last = performance.now();
            setTimeout(beat, 10);
          };
          beat();
          const transfer = new DataTransfer();
          for (let place = 0; place < 1000; place++) transfer.items.add(new File(["x"], `${place}.jpg`));
          const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
          document.querySelector("form[data-upload]").dispatchEvent(drop);
        }"""
    )
    expect(page.locator("[data-uploads-summary]")).to_contain_text("1000 refused", timeout=60_000)
    expect(page.locator("[data-refused]")).to_have_count(1000)
    assert page.evaluate("() => window.longest") < 1000


def test_without_scripts_the_form_answers_with_a_page_of_outcomes(visit: Visit, technologist: User) -> None:
    page = visit(technologist, java_script_enabled=False)
    bad: FilePayload = {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"no picture at all"}
    page.locator("#files").set_input_files([picture("good.jpg", 1), bad])
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("heading", name="1 accepted")).to_be_visible()
    expect(page.locator(".card")).to_contain_text("good.jpg")
    expect(page.locator("[data-refused]")).to_contain_text("notes.jpg")
