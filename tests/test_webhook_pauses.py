"""What slows webhooks down: a receiver that asks for a pause, a name that is never resolved, a log that grows."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.http import http_date

from accounts.models import User
from classifier import safe_address, services, tasks, webhook_keeping
from classifier.errors import Conflict
from classifier.models import WebhookEndpoint, WebhookEvent, WebhookMessage
from classifier.safe_address import AddressRefused, addresses_of, target_of
from classifier.webhook_request import Answer, answered, pause_of
from classifier.webhook_sending import claim_due, send_due, settle
from tests.receiver import Receiver, running
from tests.test_webhook_sending import LOOPBACK

HOUR = timedelta(hours=1)


@pytest.fixture
def endpoint(lab_admin: User) -> WebhookEndpoint:
    added, _ = services.add_endpoint(
        actor=lab_admin, url="https://lis.example.org/hooks", events=[WebhookEvent.IMAGE_FAILED]
    )
    return added


# --- Retry-After -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "pause"),
    [
        ("120", timedelta(seconds=120)),
        (" 7 ", timedelta(seconds=7)),
        ("0", timedelta(0)),
        ("999999999", HOUR),
        ("9" * 400, timedelta(0)),
        ("-5", timedelta(0)),
        ("1.5", timedelta(0)),
        ("soon", timedelta(0)),
        ("", timedelta(0)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", timedelta(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", HOUR),
        ("Fri, 31 Dec 99999 23:59:59 GMT", timedelta(0)),
    ],
)
def test_pause_is_read_from_seconds_or_a_date_and_is_an_hour_at_most(said: str, pause: timedelta) -> None:
    assert pause_of(said) == pause


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_date_of_a_pause_is_that_of_greenwich(zone: str) -> None:
    then = datetime.now(UTC) + timedelta(minutes=10)
    said = http_date(then.timestamp()).replace("GMT", zone)

    assert timedelta(minutes=9, seconds=50) < pause_of(said) <= timedelta(minutes=10)


@pytest.mark.parametrize(("status", "heeded"), [(429, True), (503, True), (500, False), (404, False), (302, False)])
def test_only_who_is_overloaded_says_when_to_come_again(status: int, heeded: bool) -> None:
    assert bool(answered(status, "60").pause) is heeded
    assert answered(204, "60") == Answer(204, "")


@pytest.mark.parametrize(("said", "seconds"), [("600", 600), ("1", 10)])
def test_receiver_is_left_alone_for_as_long_as_it_asks_and_never_shorter_than_usual(
    lab_admin: User, settings: Any, monkeypatch: pytest.MonkeyPatch, said: str, seconds: int
) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = LOOPBACK
    monkeypatch.setattr(safe_address, "resolve", lambda host, port: ["127.0.0.1"])
    with running(Receiver(statuses=[503], headers={"Retry-After": said})) as receiver:
        added, _ = services.add_endpoint(actor=lab_admin, url=receiver.url, events=[WebhookEvent.IMAGE_FAILED])
        services.send_test_message(actor=lab_admin, endpoint=added)
        before = timezone.now()
        assert send_due() == 1

    message = WebhookMessage.objects.get()
    assert (message.last_status, message.last_code) == (503, "not_acknowledged")
    assert message.next_try_at is not None
    waits = (message.next_try_at - before).total_seconds()
    assert seconds - 1 < waits < seconds + 5


def test_pause_that_outlasts_three_days_gives_the_message_up(endpoint: WebhookEndpoint, lab_admin: User) -> None:
    services.send_test_message(actor=lab_admin, endpoint=endpoint)
    nearly_over = timezone.now() - timedelta(days=3) + timedelta(minutes=5)
    WebhookMessage.objects.update(at=nearly_over)
    [claim] = claim_due(1)

    settle(claim, [Answer(503, "not_acknowledged", timedelta(minutes=10))])

    assert WebhookMessage.objects.get().state == "given_up"


# --- Names that are never resolved -----------------------------------------------------------------------------


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A resolver that hangs for every name that begins with `slow`; the names that it was asked for."""
    asked: list[str] = []
    let_go = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if host.startswith("slow"):
            let_go.wait(20)
            raise OSError
        return ["93.184.215.14"]

    monkeypatch.setattr(safe_address, "resolve", resolve)
    yield asked
    let_go.set()
    for thread in threading.enumerate():
        if thread.name == "resolver":
            thread.join(5)


def addresses(host: str, seconds: float = 0.05) -> list[str]:
    return [str(address) for address in addresses_of(target_of(f"https://{host}/"), seconds)]


def test_names_that_hang_delay_no_other_name(hanging: list[str]) -> None:
    for number in range(20):
        with pytest.raises(TimeoutError):
            addresses(f"slow{number}.example.org")

    assert addresses("quick.example.org", seconds=2) == ["93.184.215.14"]


def test_name_that_hangs_has_one_thread_however_often_it_is_asked_for(hanging: list[str]) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError):
            addresses("slow.example.org")

    assert hanging == ["slow.example.org"]


def test_number_of_names_that_hang_is_bounded(hanging: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_address, "MOST_LOOKUPS", 3)
    for number in range(5):
        with pytest.raises(TimeoutError):
            addresses(f"slow{number}.example.org")

    assert len(hanging) == 3


def test_name_is_asked_for_anew_once_it_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["93.184.215.14"], ["10.0.0.1"]]
    monkeypatch.setattr(safe_address, "resolve", lambda host, port: answers.pop(0))

    assert addresses("lis.example.org", seconds=2) == ["93.184.215.14"]
    with pytest.raises(AddressRefused):
        addresses("lis.example.org", seconds=2)
    assert safe_address.lookups == {}


# --- The delivery log ------------------------------------------------------------------------------------------


def message_from(endpoint: WebhookEndpoint, days: float, **fields: Any) -> WebhookMessage:
    """A message of so many days ago, delivered unless `fields` say otherwise."""
    then = timezone.now() - timedelta(days=days)
    message = WebhookMessage.objects.create(
        endpoint=endpoint, event=WebhookEvent.IMAGE_FAILED, content={}, **{"delivered_at": then, **fields}
    )
    WebhookMessage.objects.filter(pk=message.pk).update(at=then)
    return message


def test_what_is_through_is_deleted_after_its_time_and_nothing_else(endpoint: WebhookEndpoint, settings: Any) -> None:
    settings.WEBHOOK_KEEP_DAYS = 30
    message_from(endpoint, 31)
    message_from(endpoint, 31, delivered_at=None)
    kept = [
        message_from(endpoint, 29),
        message_from(endpoint, 29, delivered_at=None),
        message_from(endpoint, 31, delivered_at=None, next_try_at=timezone.now()),
    ]

    assert tasks.forget_webhook_messages() == 2

    assert set(WebhookMessage.objects.all()) == set(kept)


def test_message_stays_as_long_as_its_replay(endpoint: WebhookEndpoint) -> None:
    first = message_from(endpoint, 200)
    again = message_from(endpoint, 10, replay_of=first)

    assert tasks.forget_webhook_messages() == 0
    WebhookMessage.objects.filter(pk=again.pk).update(at=timezone.now() - timedelta(days=100))
    assert tasks.forget_webhook_messages() == 1
    assert tasks.forget_webhook_messages() == 1


def test_many_messages_are_deleted_in_slices(endpoint: WebhookEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_keeping, "SLICE", 2)
    for _ in range(5):
        message_from(endpoint, 100)

    assert webhook_keeping.forget_slice(endpoint.pk) == 2
    assert tasks.forget_webhook_messages() == 3
    assert not WebhookMessage.objects.exists()


def test_replay_of_a_message_that_is_just_deleted_is_refused(endpoint: WebhookEndpoint, lab_admin: User) -> None:
    message = message_from(endpoint, 100)
    tasks.forget_webhook_messages()

    with pytest.raises(Conflict) as caught:
        services.replay_message(actor=lab_admin, message=message)
    assert caught.value.code == "not_kept"


def test_delivery_log_says_how_long_it_is_kept(
    endpoint: WebhookEndpoint, lab_admin: User, sign_in: Callable[[User], Client], settings: Any
) -> None:
    settings.WEBHOOK_KEEP_DAYS = 45
    page = sign_in(lab_admin).get(reverse("webhook", args=[endpoint.pk])).content.decode()

    assert "What was delivered or given up is deleted after 45 days." in page
