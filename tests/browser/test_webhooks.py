"""The administrator's pages of webhooks in a browser, with a real receiver behind them."""

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from accounts.models import User
from accounts.secret_text import decrypt
from classifier import services
from classifier.models import WebhookEndpoint, WebhookMessage
from classifier.services.webhooks import CHOICES
from classifier.webhook_sending import send_due
from tests.browser.conftest import Visit
from tests.browser.test_pages import faults_in_both_themes
from tests.receiver import Receiver, running

pytestmark = pytest.mark.browser
LONG = "https://lis.example.org/a/rather/long/address?with=a_query_without_any_break_" + "0123456789" * 8


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    with running(Receiver()) as at_work:
        yield at_work


def add(page: Page, url: str) -> None:
    page.get_by_role("textbox", name="Address").fill(url)
    page.get_by_role("button", name="Add the address").click()


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_accessible_and_fit(visit: Visit, lab_admin: User, receiver: Receiver, width: int) -> None:
    page = visit(lab_admin, "/webhooks/", width=width)
    faults = faults_in_both_themes(page)
    add(page, "http://10.0.0.1/")
    expect(page.locator("#hook-url-error")).to_contain_text("private or reserved addresses")
    faults += faults_in_both_themes(page)
    add(page, LONG)
    expect(page.get_by_label("Secret, shown only now")).to_be_visible()
    faults += faults_in_both_themes(page)
    endpoint, _ = services.add_endpoint(actor=lab_admin, url=receiver.url, events=CHOICES)
    receiver.statuses = [204, 422]
    for _ in range(3):
        services.send_test_message(actor=lab_admin, endpoint=endpoint)
    send_due()
    WebhookMessage.objects.filter(last_status=422).update(next_try_at=None)
    services.send_test_message(actor=lab_admin, endpoint=endpoint)
    for path in ("/webhooks/", f"/webhooks/{endpoint.pk}/"):
        page.goto(path)
        for summary in page.locator("summary", has_text="Switch off").all():
            summary.click()
        faults += faults_in_both_themes(page)
    services.switch_off_endpoint(actor=lab_admin, endpoint=endpoint)
    page.reload()
    faults += faults_in_both_themes(page)
    assert faults == []


@pytest.mark.parametrize("scripts", [True, False])
def test_administrator_sets_an_endpoint_up_by_keyboard_and_sees_a_test_arrive(
    visit: Visit, lab_admin: User, receiver: Receiver, scripts: bool
) -> None:
    page = visit(lab_admin, "/webhooks/", java_script_enabled=scripts)
    page.get_by_role("textbox", name="Address").fill(receiver.url)
    page.get_by_role("checkbox", name="Image failed").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    secret = page.get_by_label("Secret, shown only now").input_value()
    endpoint = WebhookEndpoint.objects.get()
    assert decrypt(endpoint.secret) == secret
    assert endpoint.events == ["image.failed", "report.released", "report.corrected"]
    page.get_by_role("link", name="I have copied it").click()

    page.get_by_role("button", name="Send a test message").click()
    expect(page.get_by_text("A test message is on its way")).to_be_visible()
    assert send_due() == 1
    page.get_by_role("link", name="Reload").click()
    expect(page.get_by_role("row", name="Test message")).to_contain_text("Answered 204")

    receiver.statuses = [503]
    page.get_by_role("button", name="Replay").click()
    assert send_due() == 1
    page.get_by_role("link", name="Reload").click()
    expect(page.get_by_role("row", name="sent once more")).to_contain_text("The receiver answered 503")
    page.get_by_role("button", name="Try what waits now").click()
    assert send_due() == 1
    assert len(receiver.received) == 3

    page.locator("summary", has_text="Make a new secret").click()
    page.get_by_role("button", name="Make a new secret").click()
    assert page.get_by_label("Secret, shown only now").input_value() != secret
    page.get_by_role("link", name="I have copied it").click()
    page.locator("summary", has_text="Switch off").click()
    page.get_by_role("button", name="Switch it off").click()
    expect(page.get_by_text("Nothing is sent to this address any more.")).to_be_visible()
    assert not WebhookEndpoint.objects.get().active
