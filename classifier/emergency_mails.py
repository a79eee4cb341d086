"""Mails about emergency accesses: rows of the act's own transaction, which a worker sends.

The try is written down before it is made: whoever dies in the middle of it has the mail sent again later, so each goes
out at least once. A mail server that fails or hangs holds up neither the reader nor the pictures for long: the round
ends with the first mail that can't be sent.
"""

import smtplib
from collections.abc import Iterable
from datetime import timedelta

import structlog
from celery import current_app
from django.core.mail import EmailMessage, get_connection
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from kombu.exceptions import OperationalError

from accounts.models import User
from classifier.models import EmergencyAccess, EmergencyMail

logger = structlog.get_logger(__name__)
SEND_EMERGENCY_MAILS = "classifier.send_emergency_mails"
IN_A_ROUND = 20
MAIL_SECONDS = 5
BACK_OFF = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30))
LATER = timedelta(hours=2)
GIVEN_UP_AFTER_TRIES = 30  # two days and a half
SUBJECT = "HematoVision: emergency access to a case of your laboratory"


def write(access: EmergencyAccess, people: Iterable[User]) -> None:
    """Have each of them mailed once the open transaction is committed."""
    due = [EmergencyMail(access=access, user=person, next_try_at=Now()) for person in people]
    if due:
        EmergencyMail.objects.bulk_create(due)
        transaction.on_commit(wake_mailer, robust=True)


def wake_mailer() -> None:
    """Tell a worker that a mail is due. With the broker down nothing is lost: the sweep asks again."""
    try:
        current_app.send_task(SEND_EMERGENCY_MAILS, retry=False, expires=60)
    except OperationalError:
        logger.warning("emergency_wake_up_not_sent")


def wake_if_due() -> None:
    if EmergencyMail.objects.filter(next_try_at__lte=Now()).exists():
        wake_mailer()


def send_due() -> int:
    """One round. Returns how many mails the server took."""
    rows = EmergencyMail.objects.filter(next_try_at__lte=Now()).order_by("next_try_at")
    sent = 0
    for mail in rows.select_related("user", "access__case__laboratory", "access__user__laboratory")[:IN_A_ROUND]:
        if not taken(mail):
            continue
        if still_concerned(mail) and not send(mail):
            break
        EmergencyMail.objects.filter(pk=mail.pk).update(next_try_at=None, sent_at=Now())
        sent += 1
    return sent


def taken(mail: EmergencyMail) -> bool:
    """Whether this worker is to send it now: of several, one finds the number of tries as it was."""
    if mail.tries >= GIVEN_UP_AFTER_TRIES:
        EmergencyMail.objects.filter(pk=mail.pk).update(next_try_at=None)
        logger.warning("emergency_mail_given_up", emergency=str(mail.access_id))
        return False
    pause = BACK_OFF[mail.tries] if mail.tries < len(BACK_OFF) else LATER
    mine = EmergencyMail.objects.filter(pk=mail.pk, tries=mail.tries, next_try_at__isnull=False)
    return mine.update(tries=F("tries") + 1, next_try_at=Now() + pause) == 1


def still_concerned(mail: EmergencyMail) -> bool:
    """Not those who left the laboratory before their mail could be sent."""
    return mail.user.is_active and mail.user.laboratory_id == mail.access.case.laboratory_id


def send(mail: EmergencyMail) -> bool:
    """Whether the server took it: by whom a case was opened and until when, never which one."""
    access = mail.access
    text = (
        f"{access.user} of {access.user.laboratory} has opened a case of {access.case.laboratory} in an emergency, "
        f"until {access.expires_at:%Y-%m-%d %H:%M} UTC, for reading only.\n\n"
        "Which case, and why, stands in HematoVision under Emergency access. Sign in there to see it.\n"
    )
    try:
        with get_connection(timeout=MAIL_SECONDS) as server:
            server.send_messages([EmailMessage(SUBJECT, text, to=[mail.user.email])])
    except (OSError, smtplib.SMTPException) as error:
        logger.warning("emergency_mail_not_sent", emergency=str(access.pk), error=type(error).__name__)
        return False
    return True
