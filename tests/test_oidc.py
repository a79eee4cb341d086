"""Signing in by an OpenID Connect provider: a real one on loopback, honest and otherwise."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import Role
from tests.issuer import CLIENT, Issuer, fresh_key
from tests.test_second_factor import code_of, set_up, sign_in_by_form

START, CALLBACK = "/accounts/oidc/start/", "/accounts/oidc/callback/"
OTHER_KEY = fresh_key()


@pytest.fixture(scope="module")
def key() -> Any:
    return fresh_key()


@pytest.fixture
def issuer(key: Any, settings: Any) -> Iterator[Issuer]:
    """A provider that is configured here, and honest until a test says otherwise."""
    issuer = Issuer(key=key)
    server = issuer.serve()
    settings.OIDC_ISSUER = issuer.url
    settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = CLIENT
    settings.OIDC_NAME = "Hospital sign-on"
    yield issuer
    server.shutdown()
    server.server_close()


def come_back(issuer: Issuer, client: Client | None = None, start: str = START, **changed: str) -> tuple[Client, Any]:
    """Go there, be signed in, and come back with what the provider gave, or with something `changed`."""
    client = client or Client()
    there = client.get(start)
    assert there.status_code == 302, there.content.decode()
    code, state = issuer.signs_in(there["Location"])
    return client, client.get(CALLBACK, {"code": code, "state": state, **changed})


def is_signed_in(client: Client) -> bool:
    return client.get(reverse("home")).status_code == 200


def refused_for(answer: Any) -> str:
    """The code under which the refusal is in the trail."""
    assert answer.status_code == 403
    assert "You are not signed in" in answer.content.decode()
    event = AuditEvent.objects.get(action="sign_in_failed")
    assert event.facts["way"] == "oidc"
    assert "example" not in str(event.facts)
    return str(event.facts["code"])


# --- The honest way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("methods", [None, ["client_secret_post"], ["client_secret_basic"]])
def test_reader_signs_in_by_the_provider(methods: list[str] | None, issuer: Issuer, reader: User) -> None:
    if methods:
        issuer.about["token_endpoint_auth_methods_supported"] = methods
    issuer.email = reader.email.upper()

    client, answer = come_back(issuer)

    assert answer["Location"] == reverse("home")
    assert is_signed_in(client)
    assert AuditEvent.objects.get(action="signed_in").actor == reader
    assert issuer.asked["scope"] == "openid email"
    assert issuer.asked["redirect_uri"] == f"http://testserver{CALLBACK}"
    assert User.objects.count() == 1
    assert User.objects.get().has_usable_password()


def test_address_may_come_from_the_user_info(issuer: Issuer, reader: User) -> None:
    issuer.claims = {"email": None, "email_verified": None}
    issuer.user_info = {"sub": "person-7", "email": reader.email, "email_verified": True}
    assert is_signed_in(come_back(issuer)[0])

    issuer.user_info["sub"] = "person-8"
    assert refused_for(come_back(issuer)[1]) == "oidc_failed"


def test_person_lands_where_they_wanted_to_go_and_nowhere_else(issuer: Issuer, reader: User) -> None:
    assert come_back(issuer, start=f"{START}?next=/cases/")[1]["Location"] == "/cases/"
    assert come_back(issuer, start=f"{START}?next=https://evil.example/")[1]["Location"] == reverse("home")
    page = Client().get(f"{reverse('account_login')}?next=/cases/").content.decode()
    assert f'href="{START}?next=/cases/"' in page
    assert "Sign in with Hospital sign-on" in page


# --- Who is nobody here --------------------------------------------------------------------------------------------


def test_unknown_address_makes_no_account(issuer: Issuer, reader: User) -> None:
    issuer.email = "nobody@north.example"

    client, answer = come_back(issuer)

    assert refused_for(answer) == "oidc_no_account"
    assert User.objects.count() == 1
    assert not is_signed_in(client)


def test_look_alike_address_is_another_one(issuer: Issuer, reader: User) -> None:
    """PostgreSQL makes the same capital of "i" and of the Turkish one without a dot."""
    User.objects.filter(pk=reader.pk).update(email="istvan@north.example")
    issuer.email = "\u0131stvan@north.example"

    client, answer = come_back(issuer)

    assert refused_for(answer) == "oidc_no_account"
    assert not is_signed_in(client)


@pytest.mark.parametrize("change", [{"is_active": False}, {"role": Role.SERVICE}])
def test_closed_and_service_accounts_stay_out(change: dict[str, Any], issuer: Issuer, reader: User) -> None:
    User.objects.filter(pk=reader.pk).update(**change)

    client, answer = come_back(issuer)

    assert refused_for(answer) == "oidc_no_account"
    assert AuditEvent.objects.get(action="sign_in_failed").target_id == str(reader.pk)
    assert not is_signed_in(client)


@pytest.mark.parametrize("verified", [False, None, "false", 1.5, "yes"])
def test_address_that_is_not_verified_opens_nothing(verified: Any, issuer: Issuer, reader: User) -> None:
    issuer.claims = {"email_verified": verified}

    client, answer = come_back(issuer)

    assert refused_for(answer) == "oidc_unverified"
    assert not is_signed_in(client)


# --- Answers that are not what was asked for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another one"},
        {"nonce": None},
        {"aud": "somebody else"},
        {"aud": [CLIENT[0], "somebody else"]},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"iat": 99999999999},
    ],
)
def test_token_that_is_not_for_this_sign_in_is_refused(claims: dict[str, Any], issuer: Issuer, reader: User) -> None:
    issuer.claims = claims

    client, answer = come_back(issuer)

    assert refused_for(answer) == "oidc_failed"
    assert not is_signed_in(client)


@pytest.mark.parametrize(
    "signed", [{"signing_key": OTHER_KEY}, {"key_id": "second"}, {"algorithm": "none"}, {"algorithm": "HS256"}]
)
def test_token_that_the_provider_did_not_sign_is_refused(signed: dict[str, Any], issuer: Issuer, reader: User) -> None:
    for name, value in signed.items():
        setattr(issuer, name, value)

    client, answer = come_back(issuer)

    assert refused_for(answer) == "oidc_failed"
    assert not is_signed_in(client)


def test_answer_with_another_state_never_reaches_the_provider(issuer: Issuer, reader: User) -> None:
    client, answer = come_back(issuer, state="another one")

    assert refused_for(answer) == "oidc_state"
    assert "/token" not in issuer.paths
    assert not is_signed_in(client)


def test_answer_is_good_for_one_try_and_for_the_browser_that_asked(issuer: Issuer, reader: User) -> None:
    client = Client()
    there = client.get(START)["Location"]
    code, state = issuer.signs_in(there)
    assert Client().get(CALLBACK, {"code": code, "state": state}).status_code == 403
    assert client.get(CALLBACK, {"code": code, "state": "wrong"}).status_code == 403
    assert client.get(CALLBACK, {"code": code, "state": state}).status_code == 403
    assert not is_signed_in(client)


def test_answer_that_comes_too_late_is_refused(issuer: Issuer, reader: User) -> None:
    client = Client()
    code, state = issuer.signs_in(client.get(START)["Location"])
    session = client.session
    session["oidc"] = {**session["oidc"], "at": 0}
    session.save()

    assert refused_for(client.get(CALLBACK, {"code": code, "state": state})) == "oidc_state"


def test_person_who_says_no_there_can_start_again(issuer: Issuer, reader: User) -> None:
    client = Client()
    _, state = issuer.signs_in(client.get(START)["Location"])

    answer = client.get(CALLBACK, {"error": "access_denied", "state": state})

    assert refused_for(answer) == "oidc_cancelled"
    assert is_signed_in(come_back(issuer, client)[0])


def test_wrong_code_is_refused(issuer: Issuer, reader: User) -> None:
    assert refused_for(come_back(issuer, code="guessed")[1]) == "oidc_failed"


@pytest.mark.parametrize(
    "about", [{"issuer": "https://evil.example"}, {"authorization_endpoint": "http://evil.example/"}, {"issuer": None}]
)
def test_provider_that_is_not_the_one_that_was_named_is_not_gone_to(
    about: dict[str, Any], issuer: Issuer, db: None
) -> None:
    issuer.about = about

    answer = Client().get(START)

    assert answer.status_code == 403
    assert "could not be reached, or gave no valid answer" in answer.content.decode()


def test_provider_that_is_down_leaves_the_password(issuer: Issuer, settings: Any, reader: User) -> None:
    settings.OIDC_ISSUER = "http://127.0.0.1:9"

    assert "or use your password" in Client().get(START).content.decode()
    assert sign_in_by_form(reader)[1]["Location"] == reverse("home")


def test_trying_again_and_again_is_slowed_down(issuer: Issuer, db: None) -> None:
    client = Client(REMOTE_ADDR="203.0.113.9")
    statuses = [client.get(CALLBACK, {"code": "x", "state": "x"}).status_code for _ in range(31)]

    assert statuses == [403] * 30 + [429]


# --- The second factor, and not at all -------------------------------------------------------------------------------


@pytest.fixture
def strict(laboratory: Laboratory) -> Laboratory:
    Laboratory.objects.update(requires_second_factor=True)
    return laboratory


def test_code_is_asked_for_as_after_a_password(issuer: Issuer, strict: Laboratory, reader: User) -> None:
    client, _ = come_back(issuer)
    assert client.get(reverse("home"))["Location"] == reverse("mfa_activate_totp")
    secret = set_up(client)
    assert is_signed_in(client)

    client, answer = come_back(issuer)
    assert answer["Location"] == reverse("mfa_authenticate")
    assert not is_signed_in(client)
    assert client.post(answer["Location"], {"code": code_of(secret, 1)})["Location"] == reverse("home")
    assert is_signed_in(client)


def test_provider_that_asks_for_it_itself_satisfies_the_policy(
    issuer: Issuer, strict: Laboratory, reader: User, settings: Any
) -> None:
    by_password, _ = sign_in_by_form(reader)
    secret = set_up(by_password)
    settings.OIDC_SATISFIES_SECOND_FACTOR = True

    assert is_signed_in(come_back(issuer)[0])
    # A password alone is still not enough.
    client, answer = sign_in_by_form(reader)
    assert answer["Location"] == reverse("mfa_authenticate")
    cache.clear()
    client.post(answer["Location"], {"code": code_of(secret, 1)})
    assert is_signed_in(client)


def test_without_configuration_there_is_no_door(db: None) -> None:
    for path in (START, CALLBACK):
        assert Client().get(path).status_code == 404
    assert "Sign in with" not in Client().get(reverse("account_login")).content.decode()


def test_what_is_sent_to_the_provider_holds_no_secret(issuer: Issuer, reader: User) -> None:
    address = Client().get(START)["Location"]

    told = {"response_type", "client_id", "redirect_uri", "scope", "state", "nonce"}
    assert set(parse_qs(urlsplit(address).query)) == told | {"code_challenge", "code_challenge_method"}
    assert CLIENT[1] not in address
