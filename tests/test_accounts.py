"""Signing in and out, passwords, and the commands that make people and laboratories."""

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse

from accounts import audit
from accounts.facts import FactError
from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import ROLE_VERBS, Role, Verb
from tests.conftest import PASSWORD

SignIn = Callable[[User], Client]


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


def test_guessing_passwords_is_slowed_down(technologist: User) -> None:
    client = Client()
    for _ in range(12):
        sign_in_by_form(client, technologist.email, "wrong")

    assert "Location" not in sign_in_by_form(client, technologist.email, PASSWORD).headers


def test_inactive_person_can_not_sign_in(technologist: User) -> None:
    User.objects.filter(pk=technologist.pk).update(is_active=False)
    client = Client()

    sign_in_by_form(client, technologist.email, PASSWORD)

    assert client.get(reverse("home")).status_code == 302


def test_nobody_signs_up_by_themselves(db: None) -> None:
    new = {"email": "new@x.example", "password1": PASSWORD, "password2": PASSWORD}

    Client().post(reverse("account_signup"), new)

    assert not User.objects.exists()


def test_password_is_changed(sign_in: SignIn, technologist: User) -> None:
    new = "another horse battery"
    fields = {"oldpassword": PASSWORD, "password1": new, "password2": new}

    sign_in(technologist).post(reverse("account_change_password"), fields)

    technologist.refresh_from_db()
    assert technologist.check_password(new)


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
    client.post(page.request["PATH_INFO"], {"password1": new, "password2": new})

    technologist.refresh_from_db()
    assert technologist.check_password(new)


def test_reset_says_the_same_for_an_unknown_address_and_sends_nothing(technologist: User) -> None:
    known = Client().post(reverse("account_reset_password"), {"email": technologist.email})
    unknown = Client().post(reverse("account_reset_password"), {"email": "nobody@x.example"})

    assert known["Location"] == unknown["Location"]
    assert len(mail.outbox) == 1


# --- Roles and rows --------------------------------------------------------------------------------------------


def test_role_table_is_the_one_that_was_agreed() -> None:
    clinical = {Verb.SEE, Verb.UPLOAD, Verb.REVIEW}
    assert {
        Role.TECHNOLOGIST: clinical,
        Role.READER: clinical | {Verb.RELEASE},
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


def test_production_has_no_demo_users(db: None, settings: Any) -> None:
    settings.PRODUCTION = True

    with pytest.raises(CommandError, match="demo mode only"):
        run("create_demo_users")
