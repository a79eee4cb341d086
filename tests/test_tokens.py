"""The page of API tokens, and how many requests one may send."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import ApiToken, AuditEvent, User
from accounts.roles import Role
from accounts.service_accounts import open_service_account
from accounts.tokens import MOST_TOKENS, TokenRefused, create_token, make_token, revoke_token
from classifier.api import throttles
from classifier.api.throttles import Bucket, PerToken

SignIn = Callable[[User], Client]
PAGE = "/accounts/tokens/"


def fields_for(owner: User, name: str = "LIS", scopes: tuple[str, ...] = ("read",), days: int = 90) -> dict[str, Any]:
    own = {"name": name, "scopes": list(scopes), "days": days}
    return {"act": "make", "owner": str(owner.pk), **{f"{owner.pk}-{field}": value for field, value in own.items()}}


def shown_token(response: Any) -> str:
    found = re.search(r'id="new-token">([0-9a-f]{64})<', response.content.decode())
    assert found, response.content.decode()
    return found[1]


def api_status(token: str) -> int:
    return APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=f"Token {token}").status_code


# --- One's own -------------------------------------------------------------------------------------------------


def test_token_is_made_shown_once_and_opens_what_was_ticked(sign_in: SignIn, technologist: User) -> None:
    client = sign_in(technologist)

    response = client.post(PAGE, fields_for(technologist, scopes=("read",), days=30))

    token = shown_token(response)
    assert "no-store" in response["Cache-Control"]
    assert api_status(token) == 200
    assert APIClient().post("/api/v1/cases/", {}, HTTP_AUTHORIZATION=f"Token {token}").status_code == 403
    kept = ApiToken.objects.get()
    assert (kept.name, kept.scopes, kept.user) == ("LIS", ["read"], technologist)
    assert abs(kept.expiry - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
    event = AuditEvent.objects.get(action="token_created")
    assert (event.actor, event.facts["scopes"]) == (technologist, ["read"])
    page = client.get(PAGE).content.decode()
    assert token not in page
    assert "Last used" in page


def test_reloading_the_answer_makes_no_second_token(sign_in: SignIn, technologist: User) -> None:
    client = sign_in(technologist)
    client.post(PAGE, fields_for(technologist))

    again = client.post(PAGE, fields_for(technologist))

    assert again.status_code == 400
    assert "There is a token of that name" in again.content.decode()
    assert ApiToken.objects.count() == 1


@pytest.mark.parametrize(
    ("role", "offered"),
    [
        (Role.TECHNOLOGIST, {"read", "upload", "review"}),
        (Role.READER, {"read", "upload", "review", "release"}),
        (Role.AUDITOR, {"read", "admin"}),
        (Role.ADMIN, {"read", "admin"}),
    ],
)
def test_scopes_of_the_own_role_are_offered_and_no_others(
    role: Role, offered: set[str], sign_in: SignIn, technologist: User
) -> None:
    User.objects.filter(pk=technologist.pk).update(role=role)
    client = sign_in(technologist)

    page = client.get(PAGE).content.decode()
    wrong = client.post(PAGE, fields_for(technologist, scopes=tuple({"read", "upload", "review", "release", "admin"})))

    assert set(re.findall(rf'name="{technologist.pk}-scopes" value="(\w+)"', page)) == offered
    assert wrong.status_code == 400
    assert not ApiToken.objects.exists()


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": "x" * 81}, {"scopes": []}, {"days": 31}, {"days": ""}])
def test_incomplete_form_says_what_is_missing_and_makes_nothing(
    wrong: dict[str, Any], sign_in: SignIn, technologist: User
) -> None:
    response = sign_in(technologist).post(
        PAGE, fields_for(technologist) | {f"{technologist.pk}-{name}": value for name, value in wrong.items()}
    )

    assert response.status_code == 400
    assert "errorlist" in response.content.decode()
    assert not ApiToken.objects.exists()


def test_revoked_token_opens_nothing(sign_in: SignIn, technologist: User) -> None:
    client = sign_in(technologist)
    token = shown_token(client.post(PAGE, fields_for(technologist)))

    page = client.post(PAGE, {"act": "revoke", "token": ApiToken.objects.get().token_key}, follow=True)

    assert "is revoked" in page.content.decode()
    assert api_status(token) == 401
    assert AuditEvent.objects.get(action="token_revoked").actor == technologist


def test_tokens_of_others_can_be_neither_made_nor_revoked(
    sign_in: SignIn, technologist: User, reader: User, lab_admin: User, stranger: User
) -> None:
    create_token(user=technologist)
    key = ApiToken.objects.get().token_key

    for other in (reader, lab_admin, stranger):
        assert sign_in(other).post(PAGE, fields_for(technologist)).status_code == 404
        sign_in(other).post(PAGE, {"act": "revoke", "token": key})
        with pytest.raises(TokenRefused):
            make_token(actor=other, user=technologist, name="x", scopes=["read"], lifetime=timedelta(days=1))
        with pytest.raises(TokenRefused):
            revoke_token(actor=other, token=ApiToken.objects.get())
    assert ApiToken.objects.count() == 1


def test_number_of_tokens_has_an_end_and_those_that_ran_out_do_not_count(technologist: User) -> None:
    create_token(user=technologist, name="old", lifetime=timedelta(seconds=-1))
    for number in range(MOST_TOKENS):
        create_token(user=technologist, name=f"token {number}")

    with pytest.raises(TokenRefused, match="Revoke those"):
        make_token(actor=technologist, user=technologist, name="x", scopes=["read"], lifetime=timedelta(days=1))
    ApiToken.objects.filter(name="token 3").delete()
    assert make_token(actor=technologist, user=technologist, name="old", scopes=["read"], lifetime=timedelta(days=1))


def test_act_that_is_not_known_is_not_there(sign_in: SignIn, technologist: User) -> None:
    client = sign_in(technologist)

    assert client.post(PAGE, {"act": "launch"}).status_code == 404
    assert client.post(PAGE, {}).status_code == 404
    assert client.post(PAGE, {"act": "revoke", "token": "nonsense"}).status_code == 404
    assert client.post(PAGE, {"act": "switch-off", "owner": "nonsense"}).status_code == 404


def test_operator_is_told_why_there_are_no_tokens(sign_in: SignIn, operator: User) -> None:
    client = sign_in(operator)

    assert "belongs to no laboratory" in client.get(PAGE).content.decode()
    assert client.post(PAGE, fields_for(operator)).status_code == 404
    assert not ApiToken.objects.exists()


@pytest.mark.parametrize("count", [1, 12])
def test_page_costs_the_same_however_many_tokens_there_are(
    count: int, sign_in: SignIn, technologist: User, django_assert_num_queries: Any
) -> None:
    for number in range(count):
        create_token(user=technologist, name=f"token {number}")
    client = sign_in(technologist)

    with django_assert_num_queries(4):
        assert client.get(PAGE).status_code == 200


# --- What a token opens ----------------------------------------------------------------------------------------


def test_each_request_asks_once_who_it_is(technologist: User) -> None:
    token = create_token(user=technologist)
    client = APIClient(HTTP_AUTHORIZATION=f"Token {token}")
    assert client.get("/api/v1/cell-types/").status_code == 200

    with CaptureQueriesContext(connection) as queries:
        assert client.get("/api/v1/cell-types/").status_code == 200

    assert len([query for query in queries if '"accounts_' in query["sql"]]) == 1


def test_token_ends_with_its_time_its_owner_and_itself(technologist: User) -> None:
    token = create_token(user=technologist)
    assert api_status(token) == 200

    User.objects.update(is_active=False)
    assert api_status(token) == 401
    User.objects.update(is_active=True)
    assert api_status(token) == 200
    ApiToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    assert api_status(token) == 401
    ApiToken.objects.update(expiry=timezone.now() + timedelta(minutes=1))
    assert api_status(token) == 200
    assert api_status(token[:-1] + ("0" if token[-1] != "0" else "1")) == 401
    ApiToken.objects.all().delete()
    assert api_status(token) == 401


def test_row_of_a_token_that_ran_out_goes_when_its_owner_uses_another(technologist: User, reader: User) -> None:
    gone = create_token(user=technologist, name="old")
    theirs = create_token(user=reader, name="theirs")
    ApiToken.objects.update(expiry=timezone.now() - timedelta(days=1))
    assert api_status(gone) == 401

    assert api_status(create_token(user=technologist, name="new")) == 200

    assert sorted(ApiToken.objects.values_list("name", flat=True)) == ["new", "theirs"]
    assert api_status(theirs) == 401


# --- Service accounts ------------------------------------------------------------------------------------------


def test_administrator_makes_a_service_account_its_token_and_switches_it_off(sign_in: SignIn, lab_admin: User) -> None:
    client = sign_in(lab_admin)
    client.post(PAGE, {"act": "open-account", "name": "LIS"})
    account = User.objects.get(role=Role.SERVICE)
    assert (account.full_name, account.laboratory, account.has_usable_password()) == (
        "LIS",
        lab_admin.laboratory,
        False,
    )

    token = shown_token(client.post(PAGE, fields_for(account, scopes=("read", "upload"))))
    assert APIClient().post("/api/v1/cases/", {}, HTTP_AUTHORIZATION=f"Token {token}").status_code == 201
    client.post(PAGE, {"act": "switch-off", "owner": str(account.pk)})
    assert api_status(token) == 401
    client.post(PAGE, {"act": "switch-on", "owner": str(account.pk)})
    account.refresh_from_db()

    assert account.is_active
    assert api_status(token) == 401
    actions = list(AuditEvent.objects.exclude(action="signed_in").order_by("at").values_list("action", flat=True))
    assert actions == [
        "user_created", "token_created", "case_opened", "user_changed", "token_revoked", "user_changed",
    ]  # fmt: skip


def test_account_that_is_switched_off_gets_no_token(sign_in: SignIn, lab_admin: User, service_account: User) -> None:
    User.objects.filter(pk=service_account.pk).update(is_active=False)

    response = sign_in(lab_admin).post(PAGE, fields_for(service_account))

    assert response.status_code == 400
    assert not ApiToken.objects.exists()


def test_service_account_is_offered_reading_and_uploading_alone(
    sign_in: SignIn, lab_admin: User, service_account: User
) -> None:
    page = sign_in(lab_admin).get(PAGE).content.decode()

    assert set(re.findall(rf'name="{service_account.pk}-scopes" value="(\w+)"', page)) == {"read", "upload"}


def test_two_service_accounts_have_two_names(sign_in: SignIn, lab_admin: User) -> None:
    open_service_account(actor=lab_admin, name="LIS")

    again = sign_in(lab_admin).post(PAGE, {"act": "open-account", "name": "lis "})

    assert again.status_code == 400
    assert "There is a service account of that name" in again.content.decode()


@pytest.mark.parametrize("actor", ["technologist", "reader", "auditor", "stranger"])
def test_service_accounts_are_the_own_administrators_alone(
    actor: str, sign_in: SignIn, service_account: User, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(actor)
    client = sign_in(user)

    assert service_account.full_name + "</h3>" not in client.get(PAGE).content.decode()
    assert client.post(PAGE, {"act": "open-account", "name": "X"}).status_code == 400
    assert client.post(PAGE, fields_for(service_account)).status_code == 404
    assert client.post(PAGE, {"act": "switch-off", "owner": str(service_account.pk)}).status_code == 404
    assert User.objects.filter(role=Role.SERVICE, is_active=True).count() == 1
    assert not ApiToken.objects.exists()


def test_administrator_does_not_switch_a_person(sign_in: SignIn, lab_admin: User, reader: User) -> None:
    for person in (reader, lab_admin):
        sign_in(lab_admin).post(PAGE, {"act": "switch-off", "owner": str(person.pk)})

    assert not User.objects.filter(is_active=False).exists()


# --- How many requests -----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("classifier.api.throttles.time.monotonic", lambda: now[0])
    monkeypatch.setattr(PerToken, "buckets", {})
    return now


def test_five_hundred_requests_a_second_are_never_too_many(clock: list[float]) -> None:
    """With the default: a minute of them, each second's all at once."""
    from django.conf import settings

    bucket = Bucket(settings.API_REQUESTS_PER_SECOND, clock[0])
    for second in range(60):
        assert not any(bucket.take(settings.API_REQUESTS_PER_SECOND, clock[0] + second) for _ in range(500))


def test_client_that_runs_wild_is_told_when_to_come_back(
    clock: list[float], settings: Any, technologist: User, reader: User
) -> None:
    settings.API_REQUESTS_PER_SECOND = 0.5
    token, other = create_token(user=technologist), create_token(user=technologist, name="other")
    client = APIClient(HTTP_AUTHORIZATION=f"Token {token}")

    answers = [client.get("/api/v1/cell-types/") for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[5]["Content-Type"] == "application/problem+json"
    assert answers[5].json()["code"] == "too_many_requests"
    assert int(answers[5]["Retry-After"]) >= 2
    assert api_status(other) == 200
    clock[0] += int(answers[5]["Retry-After"])
    assert client.get("/api/v1/cell-types/").status_code == 200


def test_buckets_of_clients_that_went_away_are_forgotten(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttles, "MOST_CLIENTS", 3)
    throttle = PerToken()
    PerToken.buckets.update({f"token {n}": Bucket(1, clock[0]) for n in range(3)})
    clock[0] += 60

    class Asking:
        auth = None
        user = User(email="x@y.example")

    assert throttle.allow_request(Asking(), None)  # type: ignore[arg-type]
    assert len(PerToken.buckets) == 1


def test_page_of_tokens_needs_a_user(db: None) -> None:
    assert Client().get(reverse("tokens"))["Location"].startswith(reverse("account_login"))
