"""Invitations: the one way in for people, and the page where an administrator sees who belongs to the laboratory."""

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import invitations
from accounts.invitations import SentInvitation, accept_invitation, invite_person, withdraw_invitation
from accounts.models import AuditEvent, Invitation, User
from accounts.refusals import AccountRefused
from accounts.roles import Role
from tests.conftest import PASSWORD

SignIn = Callable[[User], Client]
PEOPLE = "/accounts/people/"
NEW = "nora@north.example"
ACCEPT = {"full_name": "Nora New", "password1": PASSWORD, "password2": PASSWORD}


def invite(client: Client, **fields: Any) -> Any:
    return client.post(PEOPLE, {"act": "invite", "email": NEW, "full_name": "Nora New", "role": "reader", **fields})


def shown_link(response: Any) -> str:
    found = re.search(r'id="invitation-link">http://testserver(/accounts/invitation/[^<]+)<', response.content.decode())
    assert found, response.content.decode()
    return found[1]


def events(start: str = "invitation") -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action__startswith=start).order_by("at"))


@pytest.fixture
def sent(lab_admin: User) -> SentInvitation:
    return invite_person(actor=lab_admin, email=NEW, full_name="Nora New", role="reader")


def link_of(sent: SentInvitation) -> str:
    return reverse("invitation", args=[sent.invitation.pk, sent.secret])


# --- The whole way -------------------------------------------------------------------------------------------------


def test_invited_person_opens_an_account_and_signs_in(sign_in: SignIn, lab_admin: User) -> None:
    answer = invite(sign_in(lab_admin), email=NEW.upper())
    link = shown_link(answer)
    assert "no-store" in answer["Cache-Control"]
    (message,) = mail.outbox
    assert message.to == [NEW]
    assert f"http://testserver{link}" in message.body
    assert "patient" not in message.body
    client = Client()
    page = client.get(link).content.decode()
    assert "Welcome to Northside" in page
    assert NEW in page
    assert "at least 12 characters" in page

    assert client.post(link, ACCEPT)["Location"] == reverse("account_login")

    user = User.objects.get(email=NEW)
    assert (user.full_name, user.role, user.laboratory) == ("Nora New", Role.READER, lab_admin.laboratory)
    signed_in = client.post(reverse("account_login"), {"login": NEW, "password": PASSWORD})
    assert signed_in["Location"] == reverse("home")
    sending, accepting = events()
    assert (sending.action, sending.actor, sending.facts) == ("invitation_sent", lab_admin, {"role": "reader"})
    assert (accepting.action, accepting.actor, accepting.target_id) == ("invitation_accepted", user, str(user.pk))
    assert NEW not in str([sending.facts, accepting.facts])


def test_secret_is_stored_as_a_hash_and_never_shown_again(sign_in: SignIn, lab_admin: User) -> None:
    client = sign_in(lab_admin)
    secret = shown_link(invite(client)).rstrip("/").rsplit("/", 1)[1]

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM accounts_invitation")
        assert secret not in str(cursor.fetchall())
    assert secret not in client.get(PEOPLE).content.decode()
    assert secret not in str([event.facts for event in AuditEvent.objects.all()])


def test_secret_never_reaches_a_log(sent: SentInvitation, caplog: Any, capfd: Any) -> None:
    Client().get(link_of(sent))
    Client().get(link_of(sent)[:-3] + "/")

    assert sent.secret not in caplog.text
    assert sent.secret not in "".join(capfd.readouterr())


def test_link_opens_once(sent: SentInvitation) -> None:
    Client().post(link_of(sent), ACCEPT)

    for answer in (Client().get(link_of(sent)), Client().post(link_of(sent), ACCEPT)):
        assert answer.status_code == 410
        assert "does not open anything" in answer.content.decode()
    assert User.objects.filter(email=NEW).count() == 1


@pytest.mark.parametrize("why", ["old", "withdrawn", "sent again", "wrong secret", "empty account"])
def test_link_that_does_not_hold_opens_nothing(why: str, sent: SentInvitation, lab_admin: User) -> None:
    link = link_of(sent)
    if why == "old":
        Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif why == "withdrawn":
        withdraw_invitation(actor=lab_admin, invitation=sent.invitation)
    elif why == "sent again":
        invitations.send_invitation_again(actor=lab_admin, invitation=sent.invitation)
    elif why == "wrong secret":
        link = reverse("invitation", args=[sent.invitation.pk, "x" * 43])
    else:
        link = reverse("invitation", args=[lab_admin.pk, sent.secret])

    assert Client().get(link).status_code == Client().post(link, ACCEPT).status_code == 410
    assert not User.objects.filter(email=NEW).exists()


@pytest.mark.django_db(transaction=True)
def test_two_clicks_at_once_make_one_account(sent: SentInvitation) -> None:
    outcomes: list[str] = []
    together = threading.Barrier(2)

    def click() -> None:
        together.wait()
        try:
            accept_invitation(invitation_id=sent.invitation.pk, secret=sent.secret, full_name="Nora", password=PASSWORD)
            outcomes.append("made")
        except AccountRefused as refusal:
            outcomes.append(refusal.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=click) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes.count("made") == 1
    assert set(outcomes) - {"made"} <= {"invitation_not_valid", "address_in_use"}
    assert User.objects.filter(email=NEW).count() == 1
    assert len(events("invitation_accepted")) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"password1": "short", "password2": "short"}, "at least 12 characters"),
        ({"password1": "password1234", "password2": "password1234"}, "too common"),
        ({"password1": "394857203948", "password2": "394857203948"}, "entirely numeric"),
        ({"password1": NEW, "password2": NEW}, "too similar"),
        ({"password2": "another horse battery"}, "The two passwords differ"),
        ({"full_name": ""}, "required"),
    ],
)
def test_weak_password_is_refused_in_words_and_the_link_stays_good(
    wrong: dict[str, str], words: str, sent: SentInvitation
) -> None:
    answer = Client().post(link_of(sent), ACCEPT | wrong)

    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not User.objects.filter(email=NEW).exists()
    assert Client().post(link_of(sent), ACCEPT)["Location"] == reverse("account_login")


def test_somebody_who_is_signed_in_is_asked_to_sign_out_first(
    sent: SentInvitation, sign_in: SignIn, reader: User
) -> None:
    client = sign_in(reader)

    assert "You are signed in as Ruth Reyes" in client.get(link_of(sent)).content.decode()
    client.post(link_of(sent), ACCEPT)
    assert not User.objects.filter(email=NEW).exists()


def test_account_that_was_made_meanwhile_is_said_and_nothing_is_doubled(sent: SentInvitation, lab_admin: User) -> None:
    User.objects.create_user(NEW, PASSWORD, laboratory=lab_admin.laboratory, role=Role.AUDITOR)

    answer = Client().post(link_of(sent), ACCEPT)

    assert "There is an account with this address already" in answer.content.decode()
    assert User.objects.get(email=NEW).role == Role.AUDITOR


def test_guessing_links_is_slowed_down(sent: SentInvitation) -> None:
    client = Client(REMOTE_ADDR="203.0.113.7")
    for _ in range(20):
        assert client.get(reverse("invitation", args=[sent.invitation.pk, "guess"])).status_code == 410

    limited = client.get(link_of(sent))
    assert limited.status_code == 429
    assert "Wait a minute" in limited.content.decode()
    assert Client(REMOTE_ADDR="203.0.113.8").get(link_of(sent)).status_code == 200


# --- The administrator ---------------------------------------------------------------------------------------------


def test_page_is_the_administrators_alone(
    sign_in: SignIn, technologist: User, reader: User, auditor: User, operator: User, lab_admin: User
) -> None:
    for person in (technologist, reader, auditor, operator):
        client = sign_in(person)
        assert client.get(PEOPLE).status_code == invite(client).status_code == 404
    assert not Invitation.objects.exists()
    page = sign_in(lab_admin).get(reverse("home")).content.decode()
    assert f'href="{PEOPLE}"' in page
    assert f'href="{PEOPLE}"' not in sign_in(reader).get(reverse("home")).content.decode()


def test_page_lists_the_people_of_the_own_laboratory_and_what_they_sign_in_with(
    sign_in: SignIn, lab_admin: User, reader: User, service_account: User, stranger: User
) -> None:
    User.objects.filter(pk=reader.pk).update(is_active=False)

    page = sign_in(lab_admin).get(PEOPLE).content.decode()

    assert "2 people" in page
    assert "Reader, switched off. Second factor: off. Never signed in." in " ".join(page.split())
    for hidden in (service_account, stranger):
        assert hidden.email not in page


def test_page_asks_the_database_as_often_for_many_people_as_for_few(
    sign_in: SignIn, lab_admin: User, django_assert_max_num_queries: Any
) -> None:
    client = sign_in(lab_admin)
    for number in range(20):
        email = f"p{number}@north.example"
        User.objects.create_user(email, None, laboratory=lab_admin.laboratory, role=Role.READER)
        invite_person(actor=lab_admin, email=f"i{email}", full_name="", role="reader")

    with django_assert_max_num_queries(6):
        client.get(PEOPLE)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"email": "RUTH@north.example"}, "There is an account with this address already"),
        ({"email": "stan@south.example"}, "There is an account with this address already"),
        ({"email": "not an address"}, "Enter a valid email address"),
        ({"role": "service"}, "Select a valid choice"),
        ({"role": "chief"}, "Select a valid choice"),
    ],
)
def test_invitation_that_makes_no_sense_is_refused_kindly(
    fields: dict[str, str], words: str, sign_in: SignIn, lab_admin: User, reader: User, stranger: User
) -> None:
    answer = invite(sign_in(lab_admin), **fields)

    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not Invitation.objects.exists()
    assert mail.outbox == []


def test_second_invitation_of_one_address_is_refused_until_the_first_is_withdrawn(
    sign_in: SignIn, lab_admin: User, sent: SentInvitation
) -> None:
    client = sign_in(lab_admin)
    assert "has an invitation already" in invite(client).content.decode()

    client.post(PEOPLE, {"act": "withdraw", "invitation": str(sent.invitation.pk)})
    assert invite(client).status_code == 200
    assert [event.action for event in events()] == ["invitation_sent", "invitation_withdrawn", "invitation_sent"]


def test_invitation_is_sent_again_with_a_new_link(sign_in: SignIn, lab_admin: User, sent: SentInvitation) -> None:
    Invitation.objects.update(expires_at=timezone.now() - timedelta(days=1))
    client = sign_in(lab_admin)
    assert "Ran out" in client.get(PEOPLE).content.decode()

    link = shown_link(client.post(PEOPLE, {"act": "send-again", "invitation": str(sent.invitation.pk)}))

    assert sent.secret not in link
    assert Client().get(link).status_code == 200
    assert Client().get(link_of(sent)).status_code == 410
    assert events()[-1].facts == {"role": "reader", "again": True}


def test_service_refuses_what_the_page_would_not_send(
    lab_admin: User, reader: User, stranger: User, sent: SentInvitation
) -> None:
    stranger.role = Role.ADMIN
    for code, act in (
        ("not_allowed", lambda: invite_person(actor=reader, email="x@x.example", full_name="", role="reader")),
        ("unknown_role", lambda: invite_person(actor=lab_admin, email="x@x.example", full_name="", role="service")),
        ("not_allowed", lambda: withdraw_invitation(actor=reader, invitation=sent.invitation)),
        ("invitation_closed", lambda: withdraw_invitation(actor=stranger, invitation=sent.invitation)),
        ("invitation_closed", lambda: invitations.send_invitation_again(actor=stranger, invitation=sent.invitation)),
    ):
        with pytest.raises(AccountRefused) as refused:
            act()
        assert refused.value.code == code
    assert Client().get(link_of(sent)).status_code == 200


def test_invitations_of_another_laboratory_are_not_there(sign_in: SignIn, sent: SentInvitation, stranger: User) -> None:
    User.objects.filter(pk=stranger.pk).update(role=Role.ADMIN)
    client = sign_in(stranger)

    assert NEW not in client.get(PEOPLE).content.decode()
    for act in ("withdraw", "send-again"):
        assert client.post(PEOPLE, {"act": act, "invitation": str(sent.invitation.pk)}).status_code == 404
    for strange in ({"act": "launch"}, {"act": "withdraw"}, {"act": "withdraw", "invitation": "1"}):
        assert client.post(PEOPLE, strange).status_code == 404


def test_page_says_whether_the_mail_is_on_its_way(sign_in: SignIn, lab_admin: User, settings: Any) -> None:
    client = sign_in(lab_admin)
    assert "This instance has no mail server. Hand the link over yourself." in invite(client).content.decode()

    settings.EMAIL_URL = "smtp://mail.north.example:25"
    assert "is on its way by e-mail" in invite(client, email="max@north.example").content.decode()


def test_mail_server_that_is_down_is_said_and_the_link_is_still_handed_over(
    sign_in: SignIn, lab_admin: User, settings: Any
) -> None:
    settings.EMAIL_URL = "smtp://127.0.0.1:9"
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9

    answer = invite(sign_in(lab_admin))

    assert "The mail could not be sent" in answer.content.decode()
    assert Client().get(shown_link(answer)).status_code == 200
