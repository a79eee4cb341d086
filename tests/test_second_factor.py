"""The second factor: setting it up, signing in with it, who must, and what an administrator does when it is lost."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from allauth.usersessions.models import UserSession
from django.core import mail
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import AuditEvent, Laboratory, User
from accounts.refusals import AccountRefused
from accounts.second_factor import remove_second_factor, set_second_factor_policy
from accounts.secret_text import decrypt
from accounts.tokens import create_token
from tests.conftest import PASSWORD

SignIn = Callable[[User], Client]
CODE, SET_UP = "mfa_authenticate", "mfa_activate_totp"


def sign_in_by_form(user: User, client: Client | None = None, password: str = PASSWORD) -> tuple[Client, Any]:
    client = client or Client()
    return client, client.post(reverse("account_login"), {"login": user.email, "password": password})


def code_of(secret: str, steps: int = 0) -> str:
    """The code that an app shows now, or `steps` of 30 seconds later."""
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // 30 + steps)))


def set_up(client: Client) -> str:
    """Set the second factor up in the signed-in client. Returns its secret."""
    return set_up_with_code(client)[0]


def set_up_with_code(client: Client) -> tuple[str, str]:
    """As `set_up`; returns the code too that did it, since the clock may show the next one already."""
    page = client.get(reverse(SET_UP)).content.decode()
    found = re.search(r'id="totp-key">([A-Z2-7]+)<', page)
    assert found, page
    code = code_of(found[1])
    answer = client.post(reverse(SET_UP), {"code": code})
    assert answer["Location"] == reverse("mfa_view_recovery_codes")
    return found[1], code


def type_code(client: Client, code: str) -> Any:
    return client.post(reverse(CODE), {"code": code})


@pytest.fixture
def strict(laboratory: Laboratory) -> Laboratory:
    """The laboratory, which asks readers, auditors and administrators for a second factor."""
    laboratory.requires_second_factor = True
    laboratory.save()
    return laboratory


def actions() -> list[str]:
    return list(AuditEvent.objects.order_by("at").values_list("action", flat=True))


# --- Setting up and signing in -------------------------------------------------------------------------------------


def test_reader_sets_it_up_and_then_signs_in_with_password_and_code(
    reader: User, django_capture_on_commit_callbacks: Any
) -> None:
    client, _ = sign_in_by_form(reader)
    with django_capture_on_commit_callbacks(execute=True):
        secret = set_up(client)
    codes = client.get(reverse("mfa_view_recovery_codes")).content.decode()
    assert len(re.findall(r"<li>\d{8}</li>", codes)) == 10
    client.post(reverse("account_logout"))

    client, answer = sign_in_by_form(reader)
    assert answer["Location"] == reverse(CODE)
    assert client.get(reverse("home")).status_code == 302
    assert type_code(client, code_of(secret, 1))["Location"] == reverse("home")
    assert client.get(reverse("home")).status_code == 200
    assert [each for each in actions() if "factor" in each] == [
        "second_factor_added",
        "second_factor_added",
        "second_factor_used",
    ]


def test_secrets_are_encrypted_at_rest_and_stay_readable_with_the_key_of_before(reader: User, settings: Any) -> None:
    client, _ = sign_in_by_form(reader)
    secret = set_up(client)
    client.post(reverse("account_logout"))

    stored = {each.type: each.data for each in Authenticator.objects.all()}
    assert secret not in str(stored)
    assert decrypt(stored["totp"]["secret"]) == secret
    assert decrypt(stored["recovery_codes"]["seed"])
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another key of fifty characters, which came after that one"
    client, _ = sign_in_by_form(reader)
    assert type_code(client, code_of(secret, 1))["Location"] == reverse("home")


def test_key_that_is_gone_refuses_every_code_in_words(reader: User, settings: Any) -> None:
    client, _ = sign_in_by_form(reader)
    secret = set_up(client)
    settings.SECRET_KEY = "another key of fifty characters, which came after that one"

    client, _ = sign_in_by_form(reader)
    answer = type_code(client, code_of(secret, 1))

    assert answer.status_code == 503
    assert "The server&#x27;s key has changed" in answer.content.decode().replace("'", "&#x27;")


def test_code_opens_once(reader: User) -> None:
    client, _ = sign_in_by_form(reader)
    code = code_of(set_up(client), 1)
    first, second = sign_in_by_form(reader)[0], sign_in_by_form(reader)[0]

    assert type_code(first, code)["Location"] == reverse("home")
    assert "was used before" in type_code(second, code).content.decode()
    # allauth would take it again once its own note has run out, as long as the step after is tolerated.
    cache.delete(f"allauth.mfa.totp.used?user={reader.pk}&code={code}")
    for typed in (code, f"{code[:3]}-{code[3:]}", f"{code[:3]}.{code[3:]}", f" {code} "):
        assert type_code(second, typed).status_code == 200, "it opens once, however it is typed"
    assert "second_factor_failed" in actions()


def test_code_that_set_it_up_opens_no_session(reader: User) -> None:
    client, _ = sign_in_by_form(reader)
    _, code = set_up_with_code(client)

    answer = type_code(sign_in_by_form(reader)[0], code)

    assert answer.status_code == 200


def test_factor_that_was_turned_off_satisfies_no_later_policy(reader: User) -> None:
    client, _ = sign_in_by_form(reader)
    set_up(client)
    assert client.post(reverse("mfa_deactivate_totp")).status_code == 302
    Laboratory.objects.update(requires_second_factor=True)

    assert client.get(reverse("home"))["Location"] == reverse("mfa_activate_totp")


def test_password_alone_leads_to_no_recovery_codes_of_somebody_who_has_a_factor(reader: User, sign_in: SignIn) -> None:
    client, _ = sign_in_by_form(reader)
    set_up(client)
    Laboratory.objects.update(requires_second_factor=True)
    without = sign_in(reader)

    for page in ("mfa_view_recovery_codes", "mfa_download_recovery_codes", "account_reauthenticate"):
        assert without.get(reverse(page))["Location"] == reverse("mfa_reauthenticate")


def test_recovery_code_opens_once_and_is_counted(reader: User) -> None:
    client, _ = sign_in_by_form(reader)
    set_up(client)
    code = re.findall(r"<li>(\d{8})</li>", client.get(reverse("mfa_view_recovery_codes")).content.decode())[3]

    client, _ = sign_in_by_form(reader)
    assert type_code(client, code)["Location"] == reverse("home")
    assert '<strong class="num">9</strong>' in client.get(reverse("mfa_index")).content.decode()
    again, _ = sign_in_by_form(reader)
    assert type_code(again, code).status_code == 200
    assert AuditEvent.objects.get(action="second_factor_used").facts == {"kind": "recovery_codes"}


def test_guessing_codes_locks_that_person_out_and_nobody_else(reader: User, auditor: User) -> None:
    secrets = {}
    for person in (reader, auditor):
        client, _ = sign_in_by_form(person)
        secrets[person] = set_up(client)
    client, _ = sign_in_by_form(reader)
    for _ in range(5):
        assert "This code is not right" in type_code(client, "000000").content.decode()

    locked = type_code(client, code_of(secrets[reader], 1))

    assert "Wait 5 minutes" in locked.content.decode()
    assert actions().count("second_factor_failed") == 5
    event = AuditEvent.objects.get(action="sign_in_locked")
    assert (event.target_id, event.laboratory) == (str(reader.pk), reader.laboratory)
    other, _ = sign_in_by_form(auditor)
    assert type_code(other, code_of(secrets[auditor], 1))["Location"] == reverse("home")


def test_setting_it_up_ends_the_other_sessions(reader: User) -> None:
    elsewhere, _ = sign_in_by_form(reader)
    client, _ = sign_in_by_form(reader)

    set_up(client)

    assert client.get(reverse("home")).status_code == 200
    assert elsewhere.get(reverse("home")).status_code == 302


def test_picture_of_the_key_is_allowed_by_the_policy_and_the_page_is_not_kept(reader: User) -> None:
    client, _ = sign_in_by_form(reader)

    page = client.get(reverse(SET_UP))

    assert 'src="data:image/svg+xml;base64,' in page.content.decode()
    assert "img-src 'self' data: blob:" in page["Content-Security-Policy"]
    assert "no-store" in page["Cache-Control"]


# --- The password again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["mfa_view_recovery_codes", "mfa_deactivate_totp", "mfa_generate_recovery_codes"])
def test_codes_and_turning_off_want_the_password_again_later(page: str, reader: User, settings: Any) -> None:
    client, _ = sign_in_by_form(reader)
    set_up(client)
    settings.ACCOUNT_REAUTHENTICATION_TIMEOUT = 0

    answer = client.get(reverse(page))
    assert answer["Location"].startswith(reverse("account_reauthenticate"))
    assert client.post(answer["Location"], {"password": "wrong"}).status_code == 200
    settings.ACCOUNT_REAUTHENTICATION_TIMEOUT = 300
    assert client.post(answer["Location"], {"password": PASSWORD})["Location"] == reverse(page)
    assert client.get(reverse(page)).status_code == 200


def test_turned_off_it_is_not_asked_for_any_more(reader: User) -> None:
    client, _ = sign_in_by_form(reader)
    set_up(client)

    assert client.post(reverse("mfa_deactivate_totp"))["Location"] == reverse("mfa_index")

    assert not Authenticator.objects.exists()
    assert sign_in_by_form(reader)[1]["Location"] == reverse("home")
    assert "second_factor_turned_off" in actions()


# --- Who must ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", ["reader", "auditor", "lab_admin"])
def test_policy_leads_to_setting_it_up_and_to_nothing_else(
    actor: str, strict: Laboratory, request: pytest.FixtureRequest
) -> None:
    client, answer = sign_in_by_form(request.getfixturevalue(actor))
    assert answer["Location"] == reverse("home")
    for page in ("home", "cases", "tokens", "people", "sessions", "account_change_password", "admin:index"):
        assert client.get(reverse(page))["Location"] == reverse(SET_UP), page
    assert client.post(reverse("tokens"), {"act": "make"})["Location"] == reverse(SET_UP)
    refused = client.get("/api/v1/cases/")
    assert (refused.status_code, refused.json()["code"]) == (403, "second_factor_required")
    assert client.get(reverse("queue-line"), headers={"X-Fragment": "1"}).status_code == 401
    assert "Your role needs a second factor" in client.get(reverse(SET_UP)).content.decode()

    set_up(client)
    assert client.get(reverse("home")).status_code == 200
    assert client.get("/api/v1/cases/").status_code == 200
    assert "can&#x27;t be turned off" in client.get(reverse("mfa_deactivate_totp")).content.decode()
    assert client.post(reverse("mfa_deactivate_totp")).status_code == 200
    assert Authenticator.objects.filter(type="totp").exists()


def test_policy_leaves_technologists_tokens_and_other_laboratories_alone(
    strict: Laboratory, technologist: User, reader: User, stranger: User
) -> None:
    for person in (technologist, stranger):
        assert sign_in_by_form(person)[0].get(reverse("home")).status_code == 200
    token = create_token(user=reader)
    assert APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=f"Token {token}").status_code == 200


def test_policy_holds_for_sessions_that_were_open_before(reader: User, lab_admin: User) -> None:
    client, _ = sign_in_by_form(reader)
    assert client.get(reverse("home")).status_code == 200

    set_second_factor_policy(actor=lab_admin, required=True)

    assert client.get(reverse("home"))["Location"] == reverse(SET_UP)
    event = AuditEvent.objects.get(action="laboratory_changed")
    assert (event.actor, event.facts) == (lab_admin, {"fields": ["requires_second_factor"]})


def test_session_without_the_code_is_asked_for_it(strict: Laboratory, reader: User, sign_in: SignIn) -> None:
    """Whoever has a second factor, in a session that was opened without it."""
    client, _ = sign_in_by_form(reader)
    secret = set_up(client)
    other = sign_in(reader)

    assert other.get(reverse("home"))["Location"] == reverse("mfa_reauthenticate")
    other.post(reverse("mfa_reauthenticate"), {"code": code_of(secret, 1)})
    assert other.get(reverse("home")).status_code == 200


@pytest.mark.parametrize(("asked", "status"), [(True, 302), (False, 200)])
def test_platform_operator_needs_one_where_the_instance_says_so(
    asked: bool, status: int, operator: User, settings: Any
) -> None:
    settings.OPERATOR_SECOND_FACTOR = asked
    client, _ = sign_in_by_form(operator)

    assert client.get(reverse("admin:index")).status_code == status


def test_whoever_is_asked_costs_no_query_a_page(
    strict: Laboratory, reader: User, technologist: User, django_assert_num_queries: Any
) -> None:
    """The policy comes with the user, and the code is noted in the session: what a page costs stays what it was."""
    counts = []
    for required in (True, False):
        Laboratory.objects.filter(pk=strict.pk).update(requires_second_factor=required)
        client, _ = sign_in_by_form(reader)
        if required:
            secret = set_up(client)
        else:
            type_code(client, code_of(secret, 1))
        with django_assert_num_queries(2) as counted:
            client.get(reverse("activity"))
        counts.append(len(counted))
    assert counts == [2, 2]


# --- The administrator ---------------------------------------------------------------------------------------------


def test_lost_factor_is_taken_off_by_the_administrator(
    reader: User, lab_admin: User, sign_in: SignIn, django_capture_on_commit_callbacks: Any
) -> None:
    client, _ = sign_in_by_form(reader)
    set_up(client)
    desk = sign_in(lab_admin)
    assert "Take off a lost second factor" in desk.get(reverse("people")).content.decode()

    with django_capture_on_commit_callbacks(execute=True):
        desk.post(reverse("people"), {"act": "remove-second-factor", "person": str(reader.pk)})

    assert not Authenticator.objects.exists()
    assert client.get(reverse("home")).status_code == 302
    assert sign_in_by_form(reader)[1]["Location"] == reverse("home")
    event = AuditEvent.objects.get(action="second_factor_removed")
    assert (event.actor, event.target_id, event.facts) == (lab_admin, str(reader.pk), {"sessions_ended": 1})
    assert [message.to for message in mail.outbox] == [[reader.email]]
    assert "set a new one up" in mail.outbox[0].body


def test_nobody_takes_off_the_own_or_a_strangers_factor(
    reader: User, lab_admin: User, stranger: User, sign_in: SignIn
) -> None:
    for person in (lab_admin, stranger):
        Authenticator.objects.create(user=person, type="totp", data={})
    for actor, user, code in (
        (lab_admin, lab_admin, "own_second_factor"),
        (lab_admin, stranger, "not_allowed"),
        (reader, lab_admin, "not_allowed"),
        (lab_admin, reader, "no_second_factor"),
    ):
        with pytest.raises(AccountRefused) as refused:
            remove_second_factor(actor=actor, user=user)
        assert refused.value.code == code
    for person in (lab_admin, stranger):
        sign_in(lab_admin).post(reverse("people"), {"act": "remove-second-factor", "person": str(person.pk)})
    assert Authenticator.objects.count() == 2


def test_operator_takes_it_off_by_command(operator: User, django_capture_on_commit_callbacks: Any) -> None:
    Authenticator.objects.create(user=operator, type="totp", data={})
    UserSession.objects.create(user=operator, ip="10.0.0.1", session_key="gone", user_agent="x")

    with django_capture_on_commit_callbacks(execute=True):
        call_command("remove_second_factor", operator.email)

    assert not Authenticator.objects.exists()
    assert not UserSession.objects.exists()
    assert AuditEvent.objects.get(action="second_factor_removed").actor is None
    for email in (operator.email, "nobody@x.example"):
        with pytest.raises(CommandError):
            call_command("remove_second_factor", email)


def test_administrator_sets_the_policy_on_the_page(lab_admin: User, reader: User, sign_in: SignIn) -> None:
    client, _ = sign_in_by_form(lab_admin)
    page = client.get(reverse("people")).content.decode()
    assert "2 of them have none yet" in page

    client.post(reverse("people"), {"act": "require"})
    assert client.get(reverse("people"))["Location"] == reverse(SET_UP)
    set_up(client)
    assert "1 of them has none yet" in client.get(reverse("people")).content.decode()
    client.post(reverse("people"), {"act": "do-not-require"})
    assert not Laboratory.objects.get(name="Northside").requires_second_factor
    # Saying it twice is no second change.
    client.post(reverse("people"), {"act": "do-not-require"})
    assert actions().count("laboratory_changed") == 2


def test_laboratory_is_made_with_the_policy_by_command(db: None) -> None:
    call_command("create_laboratory", "Eastside", "--requires-second-factor")
    call_command("create_laboratory", "Westside")

    policies = dict(Laboratory.objects.values_list("name", "requires_second_factor"))
    assert policies == {"Eastside": True, "Westside": False}
