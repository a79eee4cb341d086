"""Setting webhooks up, by the services and on the pages."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import Role
from accounts.secret_text import decrypt
from classifier import services
from classifier.errors import Conflict, HematoVisionError, InvalidInput, NotAllowed
from classifier.models import (
    WebhookEndpoint,
    WebhookEvent,
    WebhookMessage,
)
from classifier.services.webhooks import CHOICES, MOST_ENDPOINTS
from classifier.webhook_sending import envelope
from classifier.webhooks import announce
from tests.conftest import person

SignIn = Callable[[User], Client]
URL = "https://lis.example.org/hooks?key=only-for-the-receiver"


def added(actor: User, *events: str, url: str = URL) -> WebhookEndpoint:
    return services.add_endpoint(actor=actor, url=url, events=events or CHOICES)[0]


@pytest.fixture
def endpoint(lab_admin: User) -> WebhookEndpoint:
    return added(lab_admin)


@pytest.fixture
def other_admin(other_laboratory: Laboratory) -> User:
    return person("otis@south.example", "Otis Orr", other_laboratory, Role.ADMIN)


def told() -> list[tuple[str, Any]]:
    return [(message.event, message.content) for message in WebhookMessage.objects.order_by("at")]


def refused(act: Callable[[], object], error: type[HematoVisionError], code: str) -> HematoVisionError:
    with pytest.raises(error) as caught:
        act()
    assert caught.value.code == code
    return caught.value


# --- Setting it up ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor", "service_account", "operator"])
def test_only_an_administrator_sets_anything_up(
    who: str, endpoint: WebhookEndpoint, request: pytest.FixtureRequest
) -> None:
    actor = request.getfixturevalue(who)
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    for act in (
        lambda: services.add_endpoint(actor=actor, url=URL, events=CHOICES),
        lambda: services.rotate_secret(actor=actor, endpoint=endpoint),
        lambda: services.switch_off_endpoint(actor=actor, endpoint=endpoint),
        lambda: services.send_test_message(actor=actor, endpoint=endpoint),
        lambda: services.send_now(actor=actor, endpoint=endpoint),
        lambda: services.replay_message(actor=actor, message=message),
    ):
        refused(act, NotAllowed, "not_allowed")


def test_administrator_of_another_laboratory_changes_nothing(endpoint: WebhookEndpoint, other_admin: User) -> None:
    for act in (services.rotate_secret, services.switch_off_endpoint, services.send_test_message, services.send_now):
        refused(lambda act=act: act(actor=other_admin, endpoint=endpoint), NotAllowed, "not_allowed")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("events", "code"),
    [([], "events_missing"), (["image.eaten"], "unknown_event"), (["webhook.test"], "unknown_event")],
)
def test_events_are_those_of_the_list(lab_admin: User, events: list[str], code: str) -> None:
    refused(lambda: services.add_endpoint(actor=lab_admin, url=URL, events=events), InvalidInput, code)
    assert not WebhookEndpoint.objects.exists()


def test_endpoints_of_a_laboratory_are_few(lab_admin: User) -> None:
    for _ in range(MOST_ENDPOINTS):
        last = added(lab_admin)
    refused(lambda: added(lab_admin), Conflict, "too_many_endpoints")
    services.switch_off_endpoint(actor=lab_admin, endpoint=last)
    added(lab_admin)


def test_every_act_is_in_the_trail(lab_admin: User, laboratory: Laboratory) -> None:
    endpoint = added(lab_admin, "report.released")
    services.rotate_secret(actor=lab_admin, endpoint=endpoint)
    message = services.send_test_message(actor=lab_admin, endpoint=endpoint)
    services.send_now(actor=lab_admin, endpoint=endpoint)
    WebhookMessage.objects.update(next_try_at=None)
    again = services.replay_message(actor=lab_admin, message=message)
    services.switch_off_endpoint(actor=lab_admin, endpoint=endpoint)
    trail = AuditEvent.objects.filter(target_id=str(endpoint.pk)).order_by("at")
    assert [(event.action, event.actor, event.laboratory, event.facts) for event in trail] == [
        (action, lab_admin, laboratory, facts)
        for action, facts in [
            ("webhook_endpoint_added", {"events": ["report.released"]}),
            ("webhook_secret_rotated", {}),
            ("webhook_test_sent", {"message": str(message.pk)}),
            ("webhook_sent_now", {"messages": 1}),
            ("webhook_replayed", {"message": str(again.pk), "of": str(message.pk)}),
            ("webhook_endpoint_switched_off", {"messages": 1}),
        ]
    ]


def test_replay_is_a_new_message_of_the_same_content(lab_admin: User, endpoint: WebhookEndpoint) -> None:
    announce(endpoint.laboratory_id, WebhookEvent.BATCH_FINISHED, {"batch": "b"})
    first = WebhookMessage.objects.get()
    refused(lambda: services.replay_message(actor=lab_admin, message=first), Conflict, "not_sent_yet")
    WebhookMessage.objects.update(next_try_at=None, delivered_at=timezone.now())
    again = services.replay_message(actor=lab_admin, message=first)
    assert again.pk != first.pk
    assert (again.event, again.content, again.replay_of, again.state) == (
        "batch.finished",
        {"batch": "b"},
        first,
        "waiting",
    )
    assert envelope(again)["replay_of"] == str(first.pk)


def test_endpoint_that_is_switched_off_takes_nothing_more(lab_admin: User, endpoint: WebhookEndpoint) -> None:
    message = services.send_test_message(actor=lab_admin, endpoint=endpoint)
    services.switch_off_endpoint(actor=lab_admin, endpoint=endpoint)
    message.refresh_from_db()
    assert (message.state, message.last_code) == ("given_up", "switched_off")
    for act in (services.rotate_secret, services.switch_off_endpoint, services.send_test_message, services.send_now):
        refused(lambda act=act: act(actor=lab_admin, endpoint=endpoint), Conflict, "switched_off")  # type: ignore[misc]
    refused(lambda: services.replay_message(actor=lab_admin, message=message), Conflict, "switched_off")


def test_waiting_messages_are_due_at_once_when_somebody_says_so(lab_admin: User, endpoint: WebhookEndpoint) -> None:
    message = services.send_test_message(actor=lab_admin, endpoint=endpoint)
    WebhookMessage.objects.update(next_try_at=timezone.now() + timedelta(hours=6))
    assert services.send_now(actor=lab_admin, endpoint=endpoint) == 1
    message.refresh_from_db()
    assert message.next_try_at is not None
    assert message.next_try_at <= timezone.now() + timedelta(seconds=1)


# --- Pages -----------------------------------------------------------------------------------------------------------


def secret_on(page: str) -> str:
    found = re.search(r'value="(hvs_[^"]+)"', page)
    assert found
    return found[1]


def test_administrator_adds_an_address_and_sees_the_secret_once(lab_admin: User, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    page = client.get("/webhooks/").content.decode()
    assert "Nobody is told yet" in page
    form = {"url": f" {URL} ", "events": ["report.released", "image.failed"], "endpoint": str(uuid4())}
    answer = client.post("/webhooks/", form)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.url, endpoint.events) == (URL, ["image.failed", "report.released"])
    assert decrypt(endpoint.secret) == secret_on(answer.content.decode())
    for path in ("/webhooks/", f"/webhooks/{endpoint.pk}/"):
        later = client.get(path).content.decode()
        assert "hvs_" not in later
        assert endpoint.secret not in later
        assert "Report released" in later


def test_form_that_is_sent_twice_adds_one_endpoint(lab_admin: User, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    form = {"url": URL, "events": ["report.released"], "endpoint": str(uuid4())}
    client.post("/webhooks/", form)
    again = client.post("/webhooks/", form, follow=True)
    assert WebhookEndpoint.objects.count() == 1
    assert "This endpoint is there already" in again.content.decode()


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"url": "", "events": ["report.released"]}, "Enter the address that messages are sent to."),
        ({"url": "http://lis.example.org/", "events": ["report.released"]}, "Messages go over https only."),
        ({"url": "https://10.0.0.1/", "events": ["report.released"]}, "private or reserved addresses"),
        ({"url": URL}, "Choose at least one event"),
        ({"url": URL, "events": ["image.eaten"]}, "There is no event"),
        ({"url": URL, "events": ["report.released"], "endpoint": "no id"}, ""),
    ],
)
def test_what_can_not_be_used_is_said_and_what_was_typed_is_kept(
    lab_admin: User, sign_in: SignIn, form: dict[str, Any], sentence: str
) -> None:
    answer = sign_in(lab_admin).post("/webhooks/", form)
    if not sentence:
        assert WebhookEndpoint.objects.count() == 1
        return
    page = answer.content.decode()
    assert answer.status_code == 400
    assert sentence in page
    assert form["url"] in page
    assert not WebhookEndpoint.objects.exists()


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor"])
def test_pages_are_the_administrators(
    who: str, endpoint: WebhookEndpoint, sign_in: SignIn, request: pytest.FixtureRequest
) -> None:
    client = sign_in(request.getfixturevalue(who))
    assert client.get("/webhooks/").status_code == 403
    assert client.post("/webhooks/", {"url": URL}).status_code == 403
    assert client.get(f"/webhooks/{endpoint.pk}/").status_code == 403
    for act in ("test", "secret", "switch-off", "send-now"):
        assert client.post(f"/webhooks/{endpoint.pk}/{act}/").status_code == 403


def test_stranger_finds_nothing(endpoint: WebhookEndpoint, stranger: User, other_admin: User, sign_in: SignIn) -> None:
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    for user in (stranger, other_admin):
        client = sign_in(user)
        assert client.get(f"/webhooks/{endpoint.pk}/").status_code == 404
        for act in ("test", "secret", "switch-off", "send-now", f"messages/{message.pk}/replay"):
            assert client.post(f"/webhooks/{endpoint.pk}/{act}/").status_code == 404
    assert URL not in sign_in(other_admin).get("/webhooks/").content.decode()


def test_operator_has_no_webhooks(operator: User, sign_in: SignIn) -> None:
    assert sign_in(operator).get("/webhooks/").status_code == 403


def test_page_tells_what_became_of_each_message(lab_admin: User, endpoint: WebhookEndpoint, sign_in: SignIn) -> None:
    now = timezone.now()
    states: list[dict[str, Any]] = [
        {"next_try_at": now},
        {"next_try_at": now, "tries": 2, "last_code": "not_acknowledged", "last_status": 503},
        {"tries": 17, "last_code": "timed_out"},
        {"tries": 1, "delivered_at": now, "last_status": 204},
    ]
    for state in states:
        WebhookMessage.objects.create(endpoint=endpoint, event="report.released", content={}, **state)
    page = sign_in(lab_admin).get(f"/webhooks/{endpoint.pk}/").content.decode()
    for sentence in (
        "Not tried yet: it goes after what waits before it.",
        "The receiver answered 503; it should be 200 to 299.",
        "Next try:",
        "The receiver did not answer in time.",
        "Answered 204",
        "Given up",
        "Try what waits now",
    ):
        assert sentence in page
    assert page.count(">Replay<span") == 2


def test_buttons_of_the_page_do_what_they_say(lab_admin: User, endpoint: WebhookEndpoint, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    base = f"/webhooks/{endpoint.pk}/"
    assert "A test message is on its way" in client.post(f"{base}test/", follow=True).content.decode()
    assert "What waits is tried now" in client.post(f"{base}send-now/", follow=True).content.decode()
    message = WebhookMessage.objects.get()
    replay = f"{base}messages/{message.pk}/replay/"
    assert "still waits" in client.post(replay, follow=True).content.decode()
    WebhookMessage.objects.update(next_try_at=None)
    assert "sent once more" in client.post(replay, follow=True).content.decode()
    rotated = client.post(f"{base}secret/")
    endpoint.refresh_from_db()
    assert decrypt(endpoint.secret) == secret_on(rotated.content.decode())
    assert "The one before signs until" in client.get(base).content.decode()
    assert "switched off" in client.post(f"{base}switch-off/", follow=True).content.decode()
    off = client.get(base).content.decode()
    assert "Send a test message" not in off
    assert ">Replay<span" not in off
    for act in ("test/", "send-now/", "secret/", "switch-off/"):
        assert "This endpoint is switched off." in client.post(base + act, follow=True).content.decode()


def test_link_to_a_form_leads_to_its_page(lab_admin: User, endpoint: WebhookEndpoint, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    for act in ("test", "secret", "switch-off", "send-now", f"messages/{message.pk}/replay"):
        assert client.get(f"/webhooks/{endpoint.pk}/{act}/")["Location"] == f"/webhooks/{endpoint.pk}/"
    assert WebhookEndpoint.objects.get().active


@pytest.mark.parametrize("count", [1, 60])
def test_pages_are_read_in_a_fixed_number_of_queries(
    lab_admin: User,
    endpoint: WebhookEndpoint,
    sign_in: SignIn,
    count: int,
    django_assert_max_num_queries: Any,
) -> None:
    WebhookMessage.objects.bulk_create(
        WebhookMessage(endpoint=endpoint, event="webhook.test", content={}, next_try_at=timezone.now())
        for _ in range(count)
    )
    client = sign_in(lab_admin)
    with django_assert_max_num_queries(5):
        assert f">{count}<" in client.get("/webhooks/").content.decode()
    with django_assert_max_num_queries(7):
        client.get(f"/webhooks/{endpoint.pk}/")
