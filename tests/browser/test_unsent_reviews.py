"""Nothing that a reader says is lost: not by the network, a sign-out, another person, or a page that shows no tile."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Page, expect

from accounts.models import User
from classifier import services
from classifier.models import Case, CellImage, ModelVersion, Review
from tests.browser.conftest import Visit, sign_in_with_cookie
from tests.browser.test_gallery import expect_stored, gallery, tile, tray_of
from tests.factories import prediction_of

pytestmark = pytest.mark.browser

MakeImage = Callable[..., CellImage]


@pytest.fixture
def cells(make_image: MakeImage, model_version: ModelVersion) -> list[CellImage]:
    """Three lymphocytes, the least certain first."""
    images = [make_image("classified") for _ in range(3)]
    for place, image in enumerate(images):
        prediction_of(image, model_version, confidence=0.9 + place / 100)
    return images


def newer_result(image: CellImage, version: ModelVersion) -> None:
    """A newer model calls it a monocyte."""
    newer = ModelVersion.objects.create(name="m", version="9.9", sha256="f" * 64, labels=version.labels)
    prediction_of(image, newer, label="monocyte", suggestion="monocyte", conformal_set=["monocyte"])


def leave_in_browser(page: Page, user: User, image: CellImage, **said: Any) -> None:
    """A review of the user's that an earlier page could not send."""
    entry = {"image": str(image.pk), "page": f"/images/{image.pk}/", "said": said, "previous": ""}
    key = f"review:{user.pk}:000000001-00001-{str(image.pk)[:6]}"
    page.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, json.dumps(entry)])


def alert(page: Page, text: str) -> Any:
    return page.get_by_role("alert").filter(has_text=text)


# --- The network, and who is signed in -------------------------------------------------------------------------


def test_reviews_wait_for_a_server_that_cannot_be_reached_and_survive_a_reload(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    page.route("**/reviews/", lambda route: route.abort())
    page.keyboard.press("Enter")
    page.keyboard.press("3")
    expect(page.locator('[data-review-notice="unsent"]')).to_contain_text("2 reviews not stored yet")
    expect(page.locator('.tile[data-mark="waiting"]')).to_have_count(2)
    kept = page.evaluate("() => JSON.stringify({ ...localStorage })")
    assert cells[0].case.accession_number not in kept
    assert "cell.jpg" not in kept

    page.unroute_all()
    page.reload()
    expect_stored(page, 2)
    expect(page.locator("[data-reviewed]")).to_have_text("2")


def test_retry_on_demand_keeps_the_order_of_one_images_reviews(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    page.route("**/reviews/", lambda route: route.abort())
    page.keyboard.press("Enter")
    page.keyboard.press("u")
    page.keyboard.press("4")
    notice = page.locator('[data-review-notice="unsent"]')
    expect(notice).to_contain_text("3 reviews")
    page.unroute_all()
    notice.get_by_role("button", name="Try now").click()
    expect_stored(page, 3)

    said = Review.objects.filter(image=cells[0]).order_by("created_at").values_list("verdict", flat=True)
    assert list(said) == ["CONFIRMED", "WITHDRAWN", "CORRECTED"]
    assert CellImage.objects.get(pk=cells[0].pk).current_review.final_label == "eosinophil"  # type: ignore[union-attr]


def test_session_that_ends_during_the_review_loses_nothing(
    visit: Visit, technologist: User, reader: User, cells: list[CellImage], live_server: object
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    page.context.clear_cookies(name=settings.SESSION_COOKIE_NAME)
    for _ in cells:
        page.keyboard.press("Enter")
    notice = page.locator("[data-signed-out]")
    expect(notice).to_contain_text("Nothing is lost")
    assert not Review.objects.exists()

    url = page.url.split("/cases/")[0]
    sign_in_with_cookie(page.context, reader, url)
    notice.get_by_role("button", name="Go on").click()
    expect(notice).to_contain_text("Somebody else is signed in now")
    assert not Review.objects.exists()
    page.reload()
    others = page.locator('[data-review-notice="others"]')
    expect(others).to_contain_text("3 reviews of another person")

    page.context.clear_cookies(name=settings.SESSION_COOKIE_NAME)
    sign_in_with_cookie(page.context, technologist, url)
    page.reload()
    expect_stored(page, 3)
    assert set(Review.objects.values_list("reader", flat=True)) == {technologist.pk}


def test_what_another_person_left_can_be_discarded(
    visit: Visit, technologist: User, reader: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    leave_in_browser(page, reader, cells[0], verdict="UNUSABLE")
    page.reload()
    notice = page.locator('[data-review-notice="others"]')
    expect(notice).to_contain_text("1 review of another person")
    notice.get_by_role("button", name="Discard").click()
    dialog = page.get_by_role("dialog", name="Discard 1 review of another person?")
    dialog.get_by_role("button", name="Keep them").click()
    expect(notice).to_be_visible()
    assert page.evaluate("() => Object.keys(localStorage).filter((key) => key.startsWith('review:')).length") == 1
    notice.get_by_role("button", name="Discard").click()
    dialog.get_by_role("button", name="Discard").click()
    expect(notice).to_have_count(0)
    expect_stored(page, 0)


def test_review_that_is_refused_says_why(visit: Visit, technologist: User, cells: list[CellImage]) -> None:
    page = gallery(visit, technologist, cells[0].case)
    page.route("**/changes/**", lambda route: route.abort())
    Case.objects.filter(pk=cells[0].case_id).update(status="released")
    page.keyboard.press("Enter")

    expect(page.get_by_role("alert").filter(has_text="is released, so it takes no")).to_be_visible()
    expect(page.locator('.tile[data-mark="refused"]')).to_have_count(1)
    expect_stored(page, 0)


@pytest.mark.parametrize("other", ["stranger", "operator"])
def test_review_survives_that_somebody_signs_in_who_must_not_see_its_image(
    other: str, visit: Visit, technologist: User, cells: list[CellImage], request: pytest.FixtureRequest
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    url = page.url.split("/cases/")[0]
    sign_in_with_cookie(page.context, request.getfixturevalue(other), url)
    page.keyboard.press("Enter")
    notice = page.locator("[data-signed-out]")
    expect(notice).to_be_visible()
    expect(page.locator('.tile[data-mark="waiting"]')).to_have_count(1)

    sign_in_with_cookie(page.context, technologist, url)
    notice.get_by_role("button", name="Go on").click()
    expect_stored(page, 1)


def test_comment_survives_the_end_of_the_session_and_is_kept_in_no_storage(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = visit(technologist, f"/images/{cells[0].pk}/")
    url = page.url.split("/images/")[0]
    page.context.clear_cookies(name=settings.SESSION_COOKIE_NAME)
    page.locator("summary", has_text="With a comment").click()
    page.get_by_label("Comment").fill("kidney-shaped nucleus")
    page.locator("summary", has_text="It is something else").click()
    page.get_by_role("button", name="Monocyte").click()
    notice = page.locator("[data-signed-out]")
    expect(notice).to_be_visible()
    expect(page.get_by_label("Comment")).to_have_value("kidney-shaped nucleus")
    assert "kidney" not in page.evaluate("() => JSON.stringify({ ...localStorage, ...sessionStorage })")

    sign_in_with_cookie(page.context, technologist, url)
    notice.get_by_role("button", name="Go on").click()
    expect(page.locator("[data-counts]")).to_contain_text("kidney-shaped nucleus")
    assert Review.objects.get().comment == "kidney-shaped nucleus"


def test_comment_stays_where_it_was_typed_when_the_review_is_refused(
    visit: Visit, technologist: User, reader: User, cells: list[CellImage]
) -> None:
    page = visit(technologist, f"/images/{cells[0].pk}/")
    services.review_image(actor=reader, image=cells[0], verdict="CORRECTED", final_label="basophil")
    page.locator("summary", has_text="With a comment").click()
    page.get_by_label("Comment").fill("kidney-shaped nucleus")
    page.get_by_role("button", name="Unusable").click()
    question = alert(page, "Ruth Reyes has reviewed this image meanwhile")
    expect(page.get_by_label("Comment")).to_have_value("kidney-shaped nucleus")
    question.get_by_role("button", name="Use mine").click()
    expect(page.locator("[data-counts]")).to_contain_text("kidney-shaped nucleus")


# --- What the reader has to decide -----------------------------------------------------------------------------


@pytest.mark.parametrize("button", ["Leave it open", "Use mine"])
def test_class_that_the_reader_never_saw_is_not_confirmed(
    button: str, visit: Visit, technologist: User, cells: list[CellImage], model_version: ModelVersion
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    page.route("**/changes/**", lambda route: route.abort())
    newer_result(cells[0], model_version)
    page.keyboard.press("Enter")

    question = alert(page, "not the one that was confirmed")
    expect(question).to_contain_text("Yours: Lymphocyte")
    expect(tile(page, cells[0])).to_have_attribute("data-says", "monocyte")
    assert not Review.objects.exists()
    question.get_by_role("button", name=button).click()
    expect_stored(page, 1 if button == "Use mine" else 0)
    assert [(each.verdict, each.final_label) for each in Review.objects.all()] == (
        [("CORRECTED", "lymphocyte")] if button == "Use mine" else []
    )


def test_confirmation_that_waited_offline_is_for_the_class_that_was_seen(
    visit: Visit, technologist: User, cells: list[CellImage], model_version: ModelVersion
) -> None:
    page = visit(technologist, f"/images/{cells[0].pk}/")
    page.route("**/reviews/", lambda route: route.abort())
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator('[data-review-notice="unsent"]')).to_contain_text("1 review not stored yet")
    newer_result(cells[0], model_version)
    page.unroute_all()
    page.reload()

    expect(alert(page, "not the one that was confirmed")).to_be_visible()
    assert not Review.objects.exists()
    page.reload()
    question = alert(page, "The model's result changed before your review was stored")
    question.get_by_role("button", name="Leave it open").click()
    expect(page.get_by_role("button", name="Confirm")).to_be_visible()
    expect_stored(page, 0)


def test_second_word_on_a_tile_in_question_replaces_the_first_and_leaves_nothing_behind(
    visit: Visit, technologist: User, reader: User, cells: list[CellImage]
) -> None:
    page = gallery(visit, technologist, cells[0].case)
    page.route("**/changes/**", lambda route: route.abort())
    services.review_image(actor=reader, image=cells[0], verdict="CORRECTED", final_label="basophil")
    page.keyboard.press("3")
    question = page.locator("[data-asks]")
    expect(question).to_contain_text("Yours: Monocyte")
    tile(page, cells[0]).click()
    page.keyboard.press("4")
    expect(question).to_contain_text("Yours: Eosinophil")
    expect(question).to_have_count(1)
    expect(tile(page, cells[0])).to_contain_text("Basophil")
    question.get_by_role("button", name="Keep the other's").click()
    expect(question).to_have_count(0)
    expect_stored(page, 1)
    page.reload()
    expect(tray_of(page, cells[0])).to_have_attribute("data-tray-of", "basophil")
    expect(page.locator("[data-asks], .tile-mark")).to_have_count(0)


def test_page_without_the_tile_tells_of_what_was_refused_and_what_wants_a_decision(
    visit: Visit, technologist: User, reader: User, cells: list[CellImage], make_image: MakeImage
) -> None:
    services.review_image(actor=reader, image=cells[0], verdict="CORRECTED", final_label="basophil")
    closed = services.open_case(actor=technologist, accession_number="C-9")
    refused = make_image("failed", case=closed)
    Case.objects.filter(pk=closed.pk).update(status="released")
    page = visit(technologist, "/cases/")
    leave_in_browser(page, technologist, cells[0], final_label="monocyte")
    leave_in_browser(page, technologist, refused, final_label="monocyte")
    page.reload()

    lost = page.locator(f'[data-review-notice="refused-{refused.pk}"]')
    expect(lost).to_contain_text("A review was not stored. The report of this case is released")
    expect(lost.get_by_role("link", name="Open the image")).to_have_attribute("href", f"/images/{refused.pk}/")
    lost.get_by_role("button", name="Close").click()
    expect(lost).to_have_count(0)
    decide = page.locator('[data-review-notice="conflicts"]')
    expect(decide).to_contain_text("1 review wants your decision")
    decide.get_by_role("link", name="Image 1").click()
    expect(page).to_have_url(f"{page.url.split('/images/')[0]}/images/{cells[0].pk}/")
    alert(page, "Yours: Monocyte").get_by_role("button", name="Use mine").click()
    expect(page.locator("[data-counts]")).to_contain_text("Monocyte")
    expect_stored(page, 2)
