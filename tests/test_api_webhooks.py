"""Webhooks over the API."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import Laboratory, User
from accounts.roles import Role
from accounts.secret_text import decrypt
from classifier import services
from classifier.models import (
    WebhookEndpoint,
    WebhookMessage,
)
from classifier.services.webhooks import CHOICES
from tests.conftest import person

Api = Callable[..., APIClient]
URL = "https://lis.example.org/hooks?key=only-for-the-receiver"


def added(actor: User, *events: str, url: str = URL) -> WebhookEndpoint:
    return services.add_endpoint(actor=actor, url=url, events=events or CHOICES)[0]


@pytest.fixture
def endpoint(lab_admin: User) -> WebhookEndpoint:
    return added(lab_admin)


@pytest.fixture
def other_admin(other_laboratory: Laboratory) -> User:
    return person("otis@south.example", "Otis Orr", other_laboratory, Role.ADMIN)


# --- API -------------------------------------------------------------------------------------------------------------


def test_client_walks_through_all_of_it(lab_admin: User, api: Api) -> None:
    client = api(lab_admin, ("read", "admin"))
    made = client.post("/api/v1/webhooks/", {"url": URL, "events": ["report.released"]})
    assert made.status_code == 201
    body = made.json()
    address = f"/api/v1/webhooks/{body['id']}/"
    assert made["Location"].endswith(address)
    assert decrypt(WebhookEndpoint.objects.get().secret) == body.pop("secret")
    assert client.get(address).json() == body
    assert client.get("/api/v1/webhooks/").json() == {"next": None, "previous": None, "results": [body]}
    assert set(body) == {"id", "url", "events", "active", "made_at", "previous_secret_until"}
    assert (body["url"], body["events"], body["active"], body["previous_secret_until"]) == (
        URL,
        ["report.released"],
        True,
        None,
    )

    rotated = client.post(f"{address}secret/")
    assert rotated.status_code == 201
    assert decrypt(WebhookEndpoint.objects.get().secret) == rotated.json()["secret"]
    assert rotated.json()["previous_secret_until"] is not None

    sent = client.post(f"{address}test/")
    assert (sent.status_code, sent.json()["state"], sent.json()["event"]) == (202, "waiting", "webhook.test")
    assert client.post(f"{address}send-now/").json() == {"messages": 1}
    replay = f"{address}messages/{sent.json()['id']}/replay/"
    assert (client.post(replay).status_code, client.post(replay).json()["code"]) == (409, "not_sent_yet")
    WebhookMessage.objects.update(next_try_at=None, tries=17, last_code="not_acknowledged", last_status=503)
    again = client.post(replay)
    assert (again.status_code, again.json()["replay_of"]) == (202, sent.json()["id"])

    listed = client.get(f"{address}messages/").json()["results"]
    assert [one["id"] for one in listed] == [again.json()["id"], sent.json()["id"]]
    assert {name: listed[1][name] for name in ("state", "tries", "last_status", "last_code", "last_outcome")} == {
        "state": "given_up",
        "tries": 17,
        "last_status": 503,
        "last_code": "not_acknowledged",
        "last_outcome": "The receiver answered 503; it should be 200 to 299.",
    }
    assert listed[0]["last_code"] is None

    assert client.delete(address).status_code == 204
    assert client.get(address).json()["active"] is False
    assert client.delete(address).json()["code"] == "switched_off"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "http://lis.example.org/", "events": ["report.released"]}, "url_scheme"),
        ({"url": "https://127.0.0.1/", "events": ["report.released"]}, "url_address_refused"),
        ({"url": URL, "events": []}, "invalid_input"),
        ({"url": URL, "events": ["image.eaten"]}, "invalid_input"),
        ({"url": URL, "events": "report.released"}, "invalid_input"),
        ({"url": URL}, "invalid_input"),
        ({"url": URL, "events": ["report.released"], "secret": "mine"}, "unknown_field"),
        ({"events": ["report.released"]}, "invalid_input"),
        ({}, "invalid_input"),
    ],
)
def test_bad_request_is_a_problem_with_its_code(lab_admin: User, api: Api, body: dict[str, Any], code: str) -> None:
    answer = api(lab_admin).post("/api/v1/webhooks/", body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert not WebhookEndpoint.objects.exists()


def test_messages_are_narrowed_by_state_and_event(endpoint: WebhookEndpoint, lab_admin: User, api: Api) -> None:
    now = timezone.now()
    rows: list[tuple[str, dict[str, Any]]] = [
        ("report.released", {"next_try_at": now}),
        ("report.released", {"delivered_at": now}),
        ("image.failed", {"tries": 3}),
    ]
    for event, state in rows:
        WebhookMessage.objects.create(endpoint=endpoint, event=event, content={}, **state)
    client, path = api(lab_admin), f"/api/v1/webhooks/{endpoint.pk}/messages/"
    for name in ("waiting", "delivered", "given_up"):
        assert [one["state"] for one in client.get(path, {"state": name}).json()["results"]] == [name]
    assert len(client.get(path, {"event": "report.released"}).json()["results"]) == 2
    for wrong, code in (({"state": "lost"}, "invalid_input"), ({"color": "red"}, "unknown_filter")):
        answer = client.get(path, wrong)
        assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_key_makes_one_endpoint_and_its_secret_is_not_repeated(lab_admin: User, api: Api) -> None:
    client = api(lab_admin)
    body = {"url": URL, "events": ["report.released"]}
    first = client.post("/api/v1/webhooks/", body, headers={"Idempotency-Key": "k-1"})
    again = client.post("/api/v1/webhooks/", body, headers={"Idempotency-Key": "k-1"})
    assert first.status_code == 201
    assert (again.status_code, again.json()["code"]) == (409, "secret_not_repeated")
    assert WebhookEndpoint.objects.count() == 1


def addresses(endpoint: WebhookEndpoint, message: WebhookMessage) -> list[tuple[str, str]]:
    base = f"/api/v1/webhooks/{endpoint.pk}/"
    return [
        ("get", base),
        ("delete", base),
        ("post", f"{base}secret/"),
        ("post", f"{base}test/"),
        ("post", f"{base}send-now/"),
        ("get", f"{base}messages/"),
        ("post", f"{base}messages/{message.pk}/replay/"),
    ]


def test_api_is_for_administrators_with_the_scope(
    endpoint: WebhookEndpoint, lab_admin: User, technologist: User, service_account: User, api: Api
) -> None:
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    everything = [("get", "/api/v1/webhooks/"), ("post", "/api/v1/webhooks/"), *addresses(endpoint, message)]
    for client in (api(technologist), api(service_account), api(lab_admin, ("read",))):
        assert [getattr(client, method)(path).status_code for method, path in everything] == [403] * 9
    assert [getattr(api(None), method)(path).status_code for method, path in everything] == [401] * 9


def test_api_hides_what_belongs_to_another_laboratory(endpoint: WebhookEndpoint, other_admin: User, api: Api) -> None:
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    client = api(other_admin)
    assert {getattr(client, method)(path).status_code for method, path in addresses(endpoint, message)} == {404}
    assert client.get("/api/v1/webhooks/").json()["results"] == []


def test_message_of_another_endpoint_is_not_replayed_below_this_one(
    endpoint: WebhookEndpoint, lab_admin: User, api: Api
) -> None:
    other = added(lab_admin)
    message = WebhookMessage.objects.create(endpoint=other, event="webhook.test", content={})
    assert api(lab_admin).post(f"/api/v1/webhooks/{endpoint.pk}/messages/{message.pk}/replay/").status_code == 404


def test_lists_of_the_api_cost_a_fixed_number_of_queries(
    endpoint: WebhookEndpoint, lab_admin: User, api: Api, django_assert_num_queries: Any
) -> None:
    WebhookMessage.objects.bulk_create(
        WebhookMessage(endpoint=endpoint, event="webhook.test", content={}) for _ in range(60)
    )
    client = api(lab_admin)
    client.get("/api/v1/webhooks/")
    with django_assert_num_queries(2):
        client.get("/api/v1/webhooks/")
    with django_assert_num_queries(3):
        assert len(client.get(f"/api/v1/webhooks/{endpoint.pk}/messages/").json()["results"]) == 50
