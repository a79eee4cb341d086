"""Tells the workers that something is queued. The message carries nothing: the rows are the queue."""

import structlog
from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

logger = structlog.get_logger(__name__)
CLASSIFY_QUEUED = "classifier.classify_queued"


def wake_workers() -> None:
    """Send a wake-up once the open transaction is committed."""
    # Robust: whatever goes wrong with a hint must not look like a failed upload, whose row is committed by now.
    transaction.on_commit(send_wake_up, robust=True)


def send_wake_up() -> None:
    """Send a wake-up now. With the broker down nothing is lost: the sweep finds the rows when it is back."""
    try:
        # An unread wake-up grows stale: the sweep sends a fresh one as long as anything is queued.
        # Last in line (0 goes first): sweeps and seals have their time, however many pictures come in.
        current_app.send_task(CLASSIFY_QUEUED, retry=False, expires=120, priority=9)
    except OperationalError:
        logger.warning("wake_up_not_sent")
