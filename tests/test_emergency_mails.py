"""The mails of an emergency access: a worker sends each once, or again where it could not be sent."""

import smtplib
from typing import Any

import pytest
from celery import current_app
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import transaction
from django.db.models.functions import Now
from structlog.testing import capture_logs

from accounts.models import User
from classifier import emergency_mails, tasks
from classifier.models import Case, EmergencyAccess, EmergencyMail, Notification
from tests.emergencies import asked


def due_again() -> None:
    """As if the pause after the last try were over."""
    EmergencyMail.objects.filter(next_try_at__isnull=False).update(next_try_at=Now())


@pytest.mark.parametrize("fault", [OSError("refused"), smtplib.SMTPServerDisconnected("gone")])
def test_mail_server_that_fails_stands_in_nobodys_way_and_is_asked_again(
    fault: Exception, stranger: User, auditor: User, lab_admin: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise fault

    asked(stranger)
    with monkeypatch.context() as broken:
        broken.setattr(EmailBackend, "send_messages", fail)
        with capture_logs() as logs:
            assert tasks.send_emergency_mails() == 0
    assert [line["event"] for line in logs] == ["emergency_mail_not_sent"], "the round ends with the first"
    assert EmergencyAccess.objects.count() == 1
    assert Notification.objects.filter(user=auditor).count() == 1

    # The other one is due still, and the first one again after its pause.
    assert tasks.send_emergency_mails() == 1
    assert tasks.send_emergency_mails() == 0
    due_again()
    assert tasks.send_emergency_mails() == 1
    due_again()
    assert tasks.send_emergency_mails() == 0
    assert sorted(address for each in mail.outbox for address in each.to) == [lab_admin.email, auditor.email]
    assert EmergencyMail.objects.filter(sent_at=None).count() == 0


def test_mail_whose_worker_dies_while_it_is_sent_goes_out_again(
    stranger: User, auditor: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: what the server had taken already comes twice rather than never."""
    asked(stranger)

    def die(_: EmergencyMail) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(emergency_mails, "send", die)
        with pytest.raises(KeyboardInterrupt):
            tasks.send_emergency_mails()
    row = EmergencyMail.objects.get()
    assert row.sent_at is None
    assert row.next_try_at is not None
    due_again()
    assert tasks.send_emergency_mails() == 1


def test_two_workers_send_a_mail_once(stranger: User, auditor: User, case: Case) -> None:
    asked(stranger)
    seen = EmergencyMail.objects.get()

    assert emergency_mails.taken(seen)
    assert not emergency_mails.taken(seen)


def test_sweep_wakes_who_sends_while_a_mail_is_due(
    stranger: User, auditor: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a wake-up that a broker lost costs half a minute, and no mail."""
    woken: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **_: woken.append(name))
    tasks.sweep_expired_claims()
    assert woken == []
    asked(stranger)

    tasks.sweep_expired_claims()
    assert woken == ["classifier.send_emergency_mails"]
    tasks.send_emergency_mails()
    tasks.sweep_expired_claims()
    assert len(woken) == 1


def test_who_left_meanwhile_gets_no_mail_and_nobody_is_tried_for_ever(
    stranger: User, auditor: User, lab_admin: User, case: Case
) -> None:
    asked(stranger)
    User.objects.filter(pk=auditor.pk).update(is_active=False)
    EmergencyMail.objects.filter(user=lab_admin).update(tries=emergency_mails.GIVEN_UP_AFTER_TRIES)

    with capture_logs() as logs:
        tasks.send_emergency_mails()

    assert mail.outbox == []
    assert [line["event"] for line in logs] == ["emergency_mail_given_up"]
    assert not EmergencyMail.objects.filter(next_try_at__isnull=False).exists()
    assert EmergencyMail.objects.get(user=lab_admin).sent_at is None


def test_access_that_is_rolled_back_mails_nobody(stranger: User, auditor: User, case: Case) -> None:
    with transaction.atomic():
        asked(stranger)
        transaction.set_rollback(True)

    assert tasks.send_emergency_mails() == 0
