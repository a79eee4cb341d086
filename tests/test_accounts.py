"""Signing in and out, passwords, and the commands that make people and laboratories."""

import re
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from allauth.account import urls as allauth_urls
from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.core import mail
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts import audit
from accounts import urls as account_urls
from accounts.facts import FactError
from accounts.models import ApiToken, AuditEvent, Laboratory, User
from accounts.roles import ROLE_VERBS, Role, Verb
from accounts.services import save_user
from accounts.tokens import create_token, revoke_tokens
from tests.conftest import PASSWORD

SignIn = Callable[[User], Client]
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)


def sign_in_by_form(client: Client, email: str, password: str) -> Any:
    return client.post(reverse("account_login"), {"login": email, "password": password})


def test_person_signs_in_by_email_and_out_again(technologist: User) -> None:
    client = Client()

    assert sign_in_by_form(client, technologist.email.upper(), PASSWORD)["Location"] == reverse("home")
    assert client.get(reverse("home")).status_code == 200
    client.post(reverse("account_logout"))
    assert client.get(reverse("home")).status_code == 302
    actions = list(AuditEvent.objects.order_by("at").values_list("action", flat=True))
    assert actions == ["signed_in", "signed_out"]


def test_wrong_password_is_refused_and_recorded_without_the_address(technologist: User) -> None:
    response = sign_in_by_form(Client(), technologist.email, "wrong")

    assert response.status_code == 200
    event = AuditEvent.objects.get(action="sign_in_failed")
    assert event.target_id == str(technologist.pk)
    assert technologist.email not in str(event.facts)


def test_guessing_a_password_locks_the_address_for_a_while_and_nobody_else(
    technologist: User, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        # From wherever the guesses come.
        client = Client(REMOTE_ADDR=f"203.0.113.{number}")
        assert "not correct" in sign_in_by_form(client, technologist.email, "wrong").content.decode()

    client = Client()
    locked = sign_in_by_form(client, technologist.email.upper(), PASSWORD)
    assert "Wait 5 minutes, then try again; the right one is refused until then as well" in locked.content.decode()
    event = AuditEvent.objects.get(action="sign_in_locked")
    assert (event.target_id, event.laboratory) == (str(technologist.pk), technologist.laboratory)
    assert sign_in_by_form(client, reader.email, PASSWORD)["Location"] == reverse("home")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 301)
    assert sign_in_by_form(Client(), technologist.email, PASSWORD)["Location"] == reverse("home")


def test_guessing_at_many_addresses_locks_where_it_comes_from(technologist: User) -> None:
    client = Client(REMOTE_ADDR="203.0.113.50")
    for number in range(30):
        sign_in_by_form(client, f"person{number}@north.example", "wrong")

    assert "Wait 5 minutes" in sign_in_by_form(client, technologist.email, PASSWORD).content.decode()
    assert sign_in_by_form(Client(), technologist.email, PASSWORD)["Location"] == reverse("home")


def test_guesses_at_many_addresses_do_not_push_out_the_counts(technologist: User) -> None:
    """Django's cache throws entries out beyond 300, which would unlock an address."""
    assert cache._max_entries >= 100_000


def test_asking_for_resets_is_slowed_down(technologist: User, reader: User) -> None:
    client = Client()
    answers = [client.post(reverse("account_reset_password"), {"email": technologist.email}) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [302] * 5 + [429]
    assert len(mail.outbox) == 5
    assert "Wait a minute" in answers[5].content.decode()
    assert client.post(reverse("account_reset_password"), {"email": reader.email}).status_code == 302


def test_guessing_tokens_is_slowed_down_by_address_and_costs_a_right_one_nothing(
    technologist: User,
) -> None:
    token = create_token(user=technologist)

    def status(text: str, ip: str) -> int:
        answer = APIClient().get("/api/v1/cases/", REMOTE_ADDR=ip, HTTP_AUTHORIZATION=f"Token {text}")
        return int(answer.status_code)

    assert [status(f"{number:064x}", "203.0.113.60") for number in range(31)] == [401] * 30 + [429]
    limited = APIClient().get("/api/v1/cases/", REMOTE_ADDR="203.0.113.60", HTTP_AUTHORIZATION="Token abc")
    assert (limited.json()["code"], limited["Retry-After"]) == ("too_many_requests", "61")
    assert status(token, "203.0.113.60") == 200
    assert status("abc", "203.0.113.61") == 401


# --- Your account, and where you are signed in ---------------------------------------------------------------------


def test_account_page_shows_the_own_account_and_leads_to_its_parts(technologist: User, lab_admin: User) -> None:
    client = Client(headers={"User-Agent": FIREFOX})
    sign_in_by_form(client, technologist.email, PASSWORD)

    page = client.get(reverse("account")).content.decode()

    for shown in (technologist.email, "Technologist, Northside", "1 open", "0 in use", "After 15 minutes"):
        assert shown in page
    for name in ("sessions", "tokens", "mfa_index", "account_change_password"):
        assert f'href="{reverse(name)}"' in page
    assert reverse("people") not in page
    sign_in_by_form(client := Client(), lab_admin.email, PASSWORD)
    assert reverse("people") in client.get(reverse("account")).content.decode()


def test_person_sees_the_own_sessions_and_ends_them(technologist: User, reader: User) -> None:
    here, there, third = (Client(headers={"User-Agent": agent}) for agent in (FIREFOX, CHROME, CHROME))
    for client in (here, there, third):
        sign_in_by_form(client, technologist.email, PASSWORD)
    sign_in_by_form(other := Client(), reader.email, PASSWORD)
    page = here.get(reverse("sessions")).content.decode()
    assert page.count("Chrome on Windows</strong>") == 2
    assert 'Firefox on Linux</strong> <span class="ribbon">This one</span>' in page

    ids = {each.session_key: each.pk for each in UserSession.objects.all()}
    here.post(reverse("sessions"), {"session": ids[there.session.session_key]})
    assert there.get(reverse("home")).status_code == 302
    assert third.get(reverse("home")).status_code == 200
    # Somebody else's session is not there to be ended.
    for strange in (ids[other.session.session_key], "x", 10**9):
        assert here.post(reverse("sessions"), {"session": strange}).status_code == 404
    here.post(reverse("sessions"), {"act": "end-others"})
    assert [client.get(reverse("home")).status_code for client in (here, third, other)] == [200, 302, 200]
    events = AuditEvent.objects.filter(action="sessions_ended")
    assert [(event.actor, event.facts) for event in events] == [(technologist, {"count": 1})] * 2

    here.post(reverse("sessions"), {"session": ids[here.session.session_key]})
    assert here.get(reverse("home")).status_code == 302


def test_session_that_ended_otherwise_is_not_listed(technologist: User) -> None:
    here, there = Client(), Client()
    for client in (here, there):
        sign_in_by_form(client, technologist.email, PASSWORD)
    there.post(reverse("account_logout"))

    assert here.get(reverse("sessions")).content.decode().count('name="session"') == 1


@pytest.mark.parametrize("page", ["account_change_password", "account_reset_password_from_key"])
def test_rules_of_passwords_stand_where_one_is_chosen(page: str, technologist: User) -> None:
    client = Client()
    sign_in_by_form(client, technologist.email, PASSWORD)
    path = reverse("account_change_password")
    if page == "account_reset_password_from_key":
        client = Client()
        client.post(reverse("account_reset_password"), {"email": technologist.email})
        link = re.search(r"https?://[^/]+(/accounts/password/reset/key/\S+)", str(mail.outbox[0].body))
        assert link
        path = client.get(link[1])["Location"]

    shown = client.get(path).content.decode()

    for rule in ("at least 12 characters", "too similar to your other personal information", "commonly used"):
        assert rule in shown


def test_inactive_person_can_not_sign_in(technologist: User) -> None:
    User.objects.filter(pk=technologist.pk).update(is_active=False)
    client = Client()

    sign_in_by_form(client, technologist.email, PASSWORD)

    assert client.get(reverse("home")).status_code == 302


def paths_of(patterns: Any) -> set[str]:
    """The addresses of URL patterns, as they are typed, with a made-up key where one belongs."""
    routes = (str(pattern.pattern).removeprefix("^").removesuffix("$") for pattern in patterns)
    return {"/accounts/" + re.sub(r"\(\?P<\w+>[^)]*\)", "zz", route) for route in routes}


# Open, but not to everybody at any time; each has tests of its own.
CONDITIONAL = {
    "/accounts/people/",
    "/accounts/oidc/start/",
    "/accounts/oidc/callback/",
    "/accounts/invitation/<uuid:invitation_id>/<str:secret>/",
    *(f"/accounts/second-factor/{page}/" for page in ("turn-off", "recovery-codes", "recovery-codes/file")),
}
OPEN = paths_of(account_urls.urlpatterns) - CONDITIONAL
CLOSED = paths_of(allauth_urls.urlpatterns) - OPEN
SUCH_AS = {"/accounts/email/", "/accounts/signup/", "/accounts/confirm-email/zz/"}
NEVER_THERE = {
    "/accounts/social/connections/",
    "/accounts/3rdparty/",
    "/accounts/login/code/",
    "/accounts/2fa/",
    "/accounts/second-factor/webauthn/",
    "/accounts/second-factor/trust/",
}


@pytest.mark.parametrize("path", sorted(OPEN))
def test_account_page_that_is_open_works_for_stranger_and_friend(
    path: str, sign_in: SignIn, technologist: User
) -> None:
    for client in (Client(), sign_in(technologist)):
        assert client.get(path, follow=True).status_code == 200


@pytest.mark.parametrize("path", sorted(CONDITIONAL))
def test_account_page_that_is_not_for_everybody_is_closed_to_stranger_and_friend(
    path: str, sign_in: SignIn, technologist: User
) -> None:
    assert Client().get(path).status_code in {302, 404}
    assert sign_in(technologist).get(path).status_code == 404


@pytest.mark.parametrize("path", sorted(CLOSED | SUCH_AS | NEVER_THERE))
def test_account_page_that_is_not_ours_is_not_there(path: str, sign_in: SignIn, technologist: User) -> None:
    new = {"action_add": "", "email": "new@x.example", "password1": PASSWORD, "password2": PASSWORD}

    for client in (Client(), sign_in(technologist)):
        assert client.get(path).status_code == client.post(path, new).status_code == 404
    assert [user.email for user in User.objects.all()] == [technologist.email]
    assert not EmailAddress.objects.filter(email="new@x.example").exists()


def test_person_without_a_password_is_led_to_the_mailed_link(sign_in: SignIn, technologist: User) -> None:
    technologist.set_unusable_password()
    technologist.save()

    page = sign_in(technologist).get(reverse("account_change_password"), follow=True)

    assert page.request["PATH_INFO"] == reverse("account_reset_password")


def test_service_account_has_no_password_whoever_gives_it_one(
    service_account: User, technologist: User, lab_admin: User
) -> None:
    assert not service_account.has_usable_password()
    service_account.set_password(PASSWORD)
    assert not service_account.has_usable_password()
    technologist.role = Role.SERVICE
    save_user(actor=lab_admin, user=technologist, changed_fields=["role"])
    assert not User.objects.get(pk=technologist.pk).has_usable_password()


def test_service_account_does_not_sign_in_on_the_pages(technologist: User) -> None:
    """Not even with a password from before it became one."""
    User.objects.filter(pk=technologist.pk).update(role=Role.SERVICE)
    client = Client()

    assert sign_in_by_form(client, technologist.email, PASSWORD)["Location"] == reverse("account_inactive")
    assert client.get(reverse("home")).status_code == 302
    assert AuditEvent.objects.get(action="sign_in_failed").target_id == str(technologist.pk)
    client.post(reverse("account_reset_password"), {"email": technologist.email})
    assert mail.outbox == []


def test_person_who_is_switched_off_is_out_at_once(sign_in: SignIn, technologist: User) -> None:
    token = create_token(user=technologist)
    client = sign_in(technologist)
    User.objects.filter(pk=technologist.pk).update(is_active=False)

    assert client.get(reverse("home")).status_code == 302
    assert api_status(token) == 401


def test_password_is_changed_and_the_trail_says_so(sign_in: SignIn, technologist: User) -> None:
    elsewhere, token = sign_in(technologist), create_token(user=technologist)
    new = "another horse battery"
    fields = {"oldpassword": PASSWORD, "password1": new, "password2": new}

    client = sign_in(technologist)
    client.post(reverse("account_change_password"), fields)

    technologist.refresh_from_db()
    assert technologist.check_password(new)
    event = AuditEvent.objects.get(action="password_changed")
    assert (event.actor, event.target_id, event.facts) == (technologist, str(technologist.pk), {})
    assert client.get(reverse("home")).status_code == 200
    assert elsewhere.get(reverse("home")).status_code == 302
    assert api_status(token) == 200


def test_weak_password_is_refused(sign_in: SignIn, technologist: User) -> None:
    fields = {"oldpassword": PASSWORD, "password1": "short", "password2": "short"}

    response = sign_in(technologist).post(reverse("account_change_password"), fields)

    assert "at least 12 characters" in response.content.decode()


def test_forgotten_password_is_reset_by_mail(technologist: User) -> None:
    client = Client()
    client.post(reverse("account_reset_password"), {"email": technologist.email})
    link = re.search(r"https?://[^/]+(/accounts/password/reset/key/\S+)", str(mail.outbox[0].body))
    assert link

    page = client.get(link[1], follow=True)
    new = "another horse battery"
    done = client.post(page.request["PATH_INFO"], {"password1": new, "password2": new}, follow=True)

    assert "Your password is changed" in done.content.decode()
    technologist.refresh_from_db()
    assert technologist.check_password(new)
    event = AuditEvent.objects.get(action="password_reset")
    assert (event.actor, event.target_id) == (technologist, str(technologist.pk))


def test_reset_says_the_same_for_an_unknown_address_and_sends_nothing(technologist: User) -> None:
    known = Client().post(reverse("account_reset_password"), {"email": technologist.email})
    unknown = Client().post(reverse("account_reset_password"), {"email": "nobody@x.example"})

    assert known["Location"] == unknown["Location"]
    assert len(mail.outbox) == 1


def test_changed_address_leaves_nothing_of_the_old_one(technologist: User, lab_admin: User) -> None:
    sign_in_by_form(Client(), technologist.email, PASSWORD)
    old = technologist.email
    EmailAddress.objects.get_or_create(user=technologist, email=old)
    technologist.email = "Moved@North.example"
    save_user(actor=lab_admin, user=technologist, changed_fields=["email"])

    assert "Location" not in sign_in_by_form(Client(), old, PASSWORD).headers
    Client().post(reverse("account_reset_password"), {"email": old})
    assert mail.outbox == []
    assert sign_in_by_form(Client(), "moved@north.example", PASSWORD)["Location"] == reverse("home")


# --- Tokens ----------------------------------------------------------------------------------------------------


def api_status(token: str) -> int:
    return APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=f"Token {token}").status_code


@pytest.mark.parametrize("by_hand", [True, False])
def test_trail_names_the_token_and_who_made_it(by_hand: bool, technologist: User, lab_admin: User) -> None:
    text = create_token(user=technologist, name="LIS", scopes=["read"], actor=lab_admin if by_hand else None)

    event = AuditEvent.objects.get(action="token_created")
    assert (event.actor, event.laboratory) == (lab_admin if by_hand else None, technologist.laboratory)
    assert (event.target_type, event.target_id) == ("user", str(technologist.pk))
    assert event.facts == {"name": "LIS", "token_key": ApiToken.objects.get().token_key, "scopes": ["read"]}
    assert text not in str(event.facts)


def test_revoked_token_opens_nothing_and_stays_in_the_trail(technologist: User, lab_admin: User) -> None:
    token, other = create_token(user=technologist, name="lost"), create_token(user=technologist)

    revoke_tokens(actor=lab_admin, tokens=ApiToken.objects.filter(name="lost"))

    assert (api_status(token), api_status(other)) == (401, 200)
    event = AuditEvent.objects.get(action="token_revoked")
    assert (event.actor, event.target_id, event.facts["name"]) == (lab_admin, str(technologist.pk), "lost")
    assert token.startswith(event.facts["token_key"])


@pytest.mark.parametrize("token", ["\xe9\xff", "\x80", "a\x00b"])
def test_token_of_impossible_characters_is_an_invalid_token(token: str, db: None) -> None:
    response = APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=f"Token {token}")

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")


# --- Roles and rows --------------------------------------------------------------------------------------------


def test_role_table_is_the_one_that_was_agreed() -> None:
    clinical = {Verb.SEE, Verb.UPLOAD, Verb.REVIEW}
    assert {
        Role.TECHNOLOGIST: clinical,
        Role.READER: clinical | {Verb.RELEASE, Verb.EMERGENCY},
        Role.AUDITOR: {Verb.SEE, Verb.AUDIT},
        Role.ADMIN: {Verb.SEE, Verb.ADMINISTER},
        Role.SERVICE: {Verb.SEE, Verb.UPLOAD},
    } == ROLE_VERBS


@pytest.mark.parametrize("change", [{"laboratory": None}, {"role": ""}, {"is_superuser": True}, {"role": "chief"}])
def test_user_without_role_and_laboratory_can_not_be_stored(technologist: User, change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.filter(pk=technologist.pk).update(**change)


def test_same_address_in_other_letters_is_the_same_address(technologist: User) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.filter(pk=User.objects.create_superuser("x@x.example", PASSWORD).pk).update(
            email=technologist.email.upper()
        )


def test_audit_event_is_never_changed_or_deleted(technologist: User) -> None:
    event = audit.record(action="tested", actor=technologist, target=technologist)

    for attempt in (event.save, event.delete, AuditEvent.objects.all().delete):
        with pytest.raises(FactError):
            attempt()
    with pytest.raises(FactError):
        AuditEvent.objects.update(action="other")


@pytest.mark.parametrize(
    "statement", ["UPDATE accounts_auditevent SET action = 'x'", "DELETE FROM accounts_auditevent"]
)
def test_database_itself_refuses_to_change_or_delete_a_fact(
    technologist: User, statement: str, delete_triggers: None
) -> None:
    audit.record(action="tested", actor=technologist)

    with pytest.raises(DatabaseError, match="fact is never"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


# --- Commands --------------------------------------------------------------------------------------------------


def run(*arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, **options)
    return out.getvalue()


def test_first_laboratory_and_user_are_made_by_command(db: None) -> None:
    run("create_laboratory", "Eastside")
    told = run("create_user", "eve@east.example", "--role", "admin", "--generate-password")

    user = User.objects.get(email="eve@east.example")
    assert (user.laboratory, user.role) == (Laboratory.objects.get(name="Eastside"), Role.ADMIN)
    assert user.check_password(told.rsplit("Password: ", 1)[1].strip())


def test_service_account_is_made_without_a_password(laboratory: Laboratory) -> None:
    told = run("create_user", "lis@north.example", "--role", "service")

    assert not User.objects.get(email="lis@north.example").has_usable_password()
    assert "create_token lis@north.example" in told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["create_laboratory", "Northside"], "No laboratory was made"),
        (["create_laboratory", " "], "No laboratory was made"),
        (["create_user", "tess@north.example", "--generate-password"], "is in use"),
        (["create_user", "x@north.example", "--laboratory", "Nowhere", "--generate-password"], "Name one laboratory"),
        (["create_user", "not an address", "--generate-password"], "No user was made"),
        (["create_token", "nobody@x.example"], "no active user"),
        (["create_token", "tess@north.example", "--scope", "release"], "has no scope release"),
    ],
)
def test_command_says_what_is_wrong(technologist: User, arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        run(*arguments)


def test_demo_users_are_made_once_and_keep_their_passwords(db: None, settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path
    run("create_demo_users")
    announced = (tmp_path / "demo-users").read_text()
    run("create_demo_users")

    assert (tmp_path / "demo-users").read_text() == announced
    assert (tmp_path / "demo-users").stat().st_mode & 0o777 == 0o600
    for line in announced.splitlines():
        email, password = line.split(" ")
        assert User.objects.get(email=email).check_password(password)
    assert {line.split("@")[0] for line in announced.splitlines()} == {"technologist", "reader", "auditor", "admin"}


def test_password_that_a_demo_user_changed_is_not_announced_any_more(db: None, settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path
    run("create_demo_users")
    reader = User.objects.get(email="reader@demo.example")
    reader.set_password("another horse battery")
    reader.save()

    run("create_demo_users")
    run("create_demo_users")

    assert "reader@demo.example (changed by its user)\n" in (tmp_path / "demo-users").read_text()
    reader.refresh_from_db()
    assert reader.check_password("another horse battery")


def test_laboratory_name_in_other_letters_is_the_same_name(laboratory: Laboratory) -> None:
    with pytest.raises(CommandError, match="There is a laboratory of that name"):
        run("create_laboratory", laboratory.name.upper())


def test_production_has_no_demo_users(db: None, settings: Any) -> None:
    settings.PRODUCTION = True

    with pytest.raises(CommandError, match="demo mode only"):
        run("create_demo_users")
