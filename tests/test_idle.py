"""A session ends after some time without activity; what pages ask for by themselves keeps none alive."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.idle import ACTIVE_AT
from accounts.models import AuditEvent, User
from accounts.tokens import create_token
from classifier import services
from classifier.errors import HematoVisionError
from classifier.models import CellImage, ModelVersion, Review
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
PAGE = {"Accept": "text/html,application/xhtml+xml"}
FRAGMENT = {"X-Fragment": "1"}
MINUTE = 60


def idle_for(client: Client, seconds: float) -> float:
    """Make the last activity of the client's session so long ago. Returns when that was."""
    session = client.session
    session[ACTIVE_AT] = time.time() - seconds
    session.save()
    return float(session[ACTIVE_AT])


def noted(client: Client) -> float:
    return float(client.session[ACTIVE_AT])


def test_session_ends_after_fifteen_minutes_without_activity(sign_in: SignIn, reader: User) -> None:
    client = sign_in(reader)
    idle_for(client, 14.9 * MINUTE)
    assert client.get(reverse("home"), headers=PAGE).status_code == 200
    idle_for(client, 15.1 * MINUTE)

    answer = client.get(reverse("cases"), headers=PAGE)

    assert answer["Location"] == f"{reverse('account_login')}?next={reverse('cases')}"
    assert client.get(reverse("home")).status_code == 302
    event = AuditEvent.objects.get(action="signed_out_idle")
    assert (event.actor, event.target_id, event.facts) == (reader, str(reader.pk), {})
    assert not UserSession.objects.exists()


def test_script_is_told_and_stores_nothing_after_the_end(
    sign_in: SignIn, technologist: User, make_image: Callable[..., CellImage], model_version: ModelVersion
) -> None:
    """A review that comes too late is refused with a 401: the page keeps it and asks to sign in again."""
    image = make_image("classified")
    prediction_of(image, model_version)
    client = sign_in(technologist)
    idle_for(client, 16 * MINUTE)

    answer = client.post(f"/images/{image.pk}/reviews/", {"verdict": "CONFIRMED"}, headers=FRAGMENT)

    assert answer.status_code == 401
    assert not Review.objects.exists()


@pytest.mark.parametrize("headers", [FRAGMENT, {"Accept": "image/avif,*/*"}, {"Accept": "*/*"}])
def test_what_a_page_asks_for_by_itself_is_no_activity(
    headers: dict[str, str], sign_in: SignIn, technologist: User
) -> None:
    client = sign_in(technologist)
    before = idle_for(client, 5 * MINUTE)

    for page in ("queue-line", "home", "image-cards"):
        client.get(reverse(page), headers=headers)
    client.get("/api/v1/cases/", headers={"Accept": "application/json"})

    assert noted(client) == before


def test_pages_and_what_is_sent_are_activity_and_written_once_a_minute(sign_in: SignIn, technologist: User) -> None:
    client = sign_in(technologist)
    before = idle_for(client, 30)
    client.get(reverse("home"), headers=PAGE)
    assert noted(client) == before

    idle_for(client, 90)
    client.get(reverse("home"), headers=PAGE)
    assert time.time() - noted(client) < 5
    idle_for(client, 90)
    client.post(reverse("case-open"), {"accession_number": "A-1"}, headers=FRAGMENT)
    assert time.time() - noted(client) < 5


def test_activity_costs_a_page_nothing_and_two_writes_once_a_minute(
    sign_in: SignIn, reader: User, django_assert_num_queries: Any
) -> None:
    """A page asks for the session and its user, as ever; a write is of the session and of the list of sessions."""
    client = sign_in(reader)
    client.get(reverse("activity"))

    with django_assert_num_queries(2) as usual:
        client.get(reverse("activity"), headers=PAGE)
    idle_for(client, 90)
    UserSession.objects.create(user=reader, ip="127.0.0.1", session_key=client.session.session_key, user_agent="x")
    with django_assert_num_queries(len(usual) + 4) as minute:
        client.post(reverse("activity"), {"idle": "3"})
    written = [query["sql"].split()[0] for query in minute if query["sql"].split()[0] in {"UPDATE", "INSERT"}]
    assert written == ["UPDATE", "UPDATE"]


def test_client_with_a_token_has_no_session_to_end(technologist: User) -> None:
    token = create_token(user=technologist)

    APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=f"Token {token}")

    assert not UserSession.objects.exists()


def test_page_asks_how_long_there_is_and_tells_what_its_user_did(sign_in: SignIn, reader: User) -> None:
    client = sign_in(reader)
    idle_for(client, 800)

    assert abs(client.get(reverse("activity"), headers=FRAGMENT).json()["seconds_left"] - 100) < 3
    assert abs(client.post(reverse("activity"), {"idle": "12.5"}).json()["seconds_left"] - 887.5) < 3
    # What was earlier than is known changes nothing, and nobody can be active in the time to come.
    assert abs(client.post(reverse("activity"), {"idle": "600"}).json()["seconds_left"] - 887.5) < 3
    assert client.post(reverse("activity"), {"idle": "-1000"}).json()["seconds_left"] <= 900
    assert client.post(reverse("activity"), {"idle": "soon"}).status_code == 400
    idle_for(client, 901)
    assert client.post(reverse("activity"), {"idle": "1"}, headers=FRAGMENT).status_code == 401


def test_stranger_is_told_to_sign_in(db: None) -> None:
    assert Client().get(reverse("activity"), headers=FRAGMENT).status_code == 401


def test_it_can_be_switched_off(sign_in: SignIn, reader: User, settings: Any) -> None:
    settings.IDLE_SECONDS = 0
    client = sign_in(reader)
    idle_for(client, 10_000_000)

    page = client.get(reverse("home"), headers=PAGE)

    assert page.status_code == 200
    assert "data-idle" not in page.content.decode()
    assert client.get(reverse("activity")).json() == {"seconds_left": None}


def test_long_upload_is_activity_until_its_end(
    sign_in: SignIn, technologist: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sign_in(technologist)
    before, real = time.time(), time.time

    def slow(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(time, "time", lambda: real() + 20 * MINUTE)
        raise HematoVisionError("slow", "It took long.")

    monkeypatch.setattr(services, "open_case", slow)
    client.post(reverse("case-open"), {"accession_number": "A-2"})

    assert noted(client) - before >= 20 * MINUTE
