"""Mails about accounts: plain text, never a word about patients."""

from smtplib import SMTPException

import structlog
from django.conf import settings
from django.core.mail import send_mail

log = structlog.get_logger(__name__)


def send_mail_about_account(*, to: str, subject: str, text: str) -> bool:
    """Whether the mail server took it. A server that is down must not undo what the mail tells of."""
    try:
        send_mail(f"{settings.ACCOUNT_EMAIL_SUBJECT_PREFIX}{subject}", f"{text}\n\nHematoVision\n", None, [to])
    except (OSError, SMTPException) as error:
        log.warning("mail_not_sent", error=type(error).__name__)
        return False
    return True
