"""Signing in and staying signed in: the second factor, invitations, and the end of a session that nobody uses."""

import time
from collections.abc import Callable

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.urls import reverse
from playwright.sync_api import Page, expect

from accounts.idle import ACTIVE_AT
from accounts.invitations import invite_person
from accounts.models import User
from classifier.models import CellImage, ModelVersion, Review
from tests.browser.conftest import Visit, sign_in_with_cookie
from tests.browser.test_gallery import expect_stored
from tests.browser.test_pages import faults_of
from tests.conftest import PASSWORD
from tests.factories import prediction_of
from tests.test_second_factor import code_of

pytestmark = pytest.mark.browser

QUESTION = "Are you still there?"


def passes(page: Page, seconds: int) -> None:
    """So much time passes, for the page and for the server's note of when somebody was last active."""
    for session in Session.objects.all():
        kept = session.get_decoded()
        kept[ACTIVE_AT] = kept.get(ACTIVE_AT, time.time()) - seconds
        session.session_data = Session.objects.encode(kept)
        session.save()
    page.clock.fast_forward(seconds * 1000)


@pytest.fixture
def cells(make_image: Callable[..., CellImage], model_version: ModelVersion) -> list[CellImage]:
    images = [make_image("classified") for _ in range(2)]
    for place, image in enumerate(images):
        prediction_of(image, model_version, confidence=0.9 + place / 100)
    return images


def test_person_who_does_nothing_is_warned_and_can_stay(visit: Visit, technologist: User) -> None:
    page = visit(technologist, "/about/")
    page.clock.install()
    page.goto("/cases/")
    passes(page, 700)
    expect(page.get_by_role("alertdialog")).to_have_count(0)
    passes(page, 100)
    question = page.get_by_role("alertdialog", name=QUESTION)
    expect(question).to_contain_text("Nothing that you entered is lost")
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        question.get_by_role("button", name="Stay signed in").click()
    expect(question).to_have_count(0)

    passes(page, 700)
    page.goto("/cases/")
    expect(page.get_by_role("heading", name="Worklist")).to_be_visible()


def test_answer_in_one_tab_counts_in_the_other(visit: Visit, technologist: User) -> None:
    first = visit(technologist, "/about/")
    first.clock.install()
    first.goto("/cases/")
    second = first.context.new_page()
    second.goto("/images/")
    passes(first, 800)
    for page in (first, second):
        expect(page.get_by_role("alertdialog", name=QUESTION)).to_be_visible()
    second.keyboard.press("Escape")
    for page in (first, second):
        expect(page.get_by_role("alertdialog")).to_have_count(0)


def test_page_is_hidden_after_the_end_and_goes_on_with_the_unsent_review(
    visit: Visit, technologist: User, cells: list[CellImage]
) -> None:
    page = visit(technologist, "/about/")
    page.clock.install()
    page.goto(f"/cases/{cells[0].case_id}/")
    page.route("**/reviews/", lambda route: route.abort())
    page.keyboard.press("Enter")
    expect(page.locator('[data-review-notice="unsent"]')).to_contain_text("1 review")
    passes(page, 910)
    notice = page.locator("[data-signed-out]")
    expect(notice).to_contain_text("signed out after 15 minutes without activity")
    expect(page.locator("main")).to_be_hidden()
    assert not Review.objects.exists()

    page.unroute_all()
    sign_in_with_cookie(page.context, technologist, page.url.split("/cases/")[0])
    notice.get_by_role("button", name="Go on").click()
    expect(page.locator("main")).to_be_visible()
    page.clock.fast_forward(60_000)
    expect_stored(page, 1)


def test_polling_keeps_nobody_signed_in(visit: Visit, technologist: User, make_image: Callable[..., CellImage]) -> None:
    waiting = make_image("queued")
    page = visit(technologist, "/about/")
    page.clock.install()
    page.goto(f"/images/{waiting.pk}/")
    for _ in range(10):
        passes(page, 100)
        page.wait_for_timeout(50)
    expect(page.locator("[data-signed-out]")).to_be_visible()


def test_upload_that_is_under_way_is_activity(visit: Visit, technologist: User, smear: bytes) -> None:
    page = visit(technologist, "/about/")
    page.clock.install()
    page.goto("/")
    passes(page, 700)
    page.locator("input[type=file]").first.set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": smear})
    expect(page.locator(".card")).to_have_count(1)
    passes(page, 200)
    page.wait_for_timeout(100)
    expect(page.get_by_role("alertdialog")).to_have_count(0)


def test_second_factor_is_set_up_and_asked_for(visit: Visit, reader: User) -> None:
    page = visit(reader, reverse("mfa_index"), width=390)
    sign_in(page, reader)
    page.goto(reverse("mfa_index"))
    page.get_by_role("link", name="Set it up").click()
    expect(page.get_by_role("img", name="QR code of the key")).to_be_visible()
    secret = page.locator("#totp-key").inner_text()
    page.get_by_label("Authenticator code").fill(code_of(secret))
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_role("list", name="Recovery codes").get_by_role("listitem")).to_have_count(10)
    page.get_by_role("link", name="I have kept them").click()

    sign_in(page, reader)
    page.get_by_label("Code").fill(code_of(secret, 1))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Your code")).to_have_count(0)
    expect(page.locator("summary")).to_contain_text("Your account")


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_pages_of_accounts_are_accessible_and_fit(
    visit: Visit, lab_admin: User, reader: User, width: int, theme: str
) -> None:
    sent = invite_person(actor=lab_admin, email="nora@north.example", full_name="Nora " * 20, role="reader")
    page = visit(None, reverse("invitation", args=[sent.invitation.pk, sent.secret]), width=width, theme=theme)
    faults = faults_of(page)
    page.goto(reverse("invitation", args=[sent.invitation.pk, "no-more"]))
    faults += faults_of(page)
    sign_in(page, lab_admin)
    for name in ("account", "sessions", "people", "mfa_index", "mfa_activate_totp"):
        page.goto(reverse(name))
        faults += faults_of(page)
    page.get_by_label("Authenticator code").fill(code_of(page.locator("#totp-key").inner_text()))
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    faults += faults_of(page)
    for name in ("mfa_index", "mfa_generate_recovery_codes", "mfa_deactivate_totp", "people"):
        page.goto(reverse(name))
        faults += faults_of(page)
    page.get_by_label("E-mail address").fill("max@north.example")
    page.get_by_role("button", name="Send the invitation").click()
    expect(page.locator("#invitation-link")).to_be_visible()
    faults += faults_of(page)
    assert faults == []


def sign_in(page: Page, user: User) -> None:
    """With the password, whoever was signed in before."""
    page.context.clear_cookies(name=settings.SESSION_COOKIE_NAME)
    page.goto(reverse("account_login"))
    page.get_by_label("Email").fill(user.email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(lambda url: reverse("account_login") not in url)


def test_invited_person_opens_the_account(visit: Visit, lab_admin: User) -> None:
    sent = invite_person(actor=lab_admin, email="nora@north.example", full_name="Nora New", role="technologist")
    page = visit(None, reverse("invitation", args=[sent.invitation.pk, sent.secret]), width=390)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password, again").fill(PASSWORD)
    page.get_by_role("button", name="Open my account").click()
    expect(page.get_by_text("Your account is there")).to_be_visible()
    assert User.objects.get(email="nora@north.example").check_password(PASSWORD)
