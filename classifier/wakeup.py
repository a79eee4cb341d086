"""Tells the workers that something is queued. The message carries nothing: the rows are the queue."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

logger = structlog.get_logger(__name__)
CLASSIFY_QUEUED = "classifier.classify_queued"
# Last in line (0 goes first): sweeps and seals have their time, however many pictures come in.
PRIORITY = 9
# Between two wake-ups of a web process: what is queued meanwhile shares the next one.
PAUSE_SECONDS = 0.1
# How long the end of a web process waits for a broker that hangs; the sweep wakes the workers in its place.
LAST_SECONDS = 2.0


def wake_workers() -> None:
    """Send a wake-up once the open transaction is committed."""
    # Robust: whatever goes wrong with a hint must not look like a failed upload, whose row is committed by now.
    transaction.on_commit(sender.ask, robust=True)


def send_wake_up() -> None:
    """Send a wake-up now. With the broker down nothing is lost: the sweep finds the rows when it is back."""
    try:
        # An unread wake-up grows stale: the sweep sends a fresh one as long as anything is queued.
        current_app.send_task(CLASSIFY_QUEUED, retry=False, expires=120, priority=PRIORITY)
    except OperationalError:
        logger.warning("wake_up_not_sent")


def send_unless_one_waits() -> None:
    """Send a wake-up now, unless the broker holds one for whichever worker is free first.

    That one's task begins after this question, so it sees every row that is committed by now. Where the answer turns
    out wrong, as the broker lost the message or it grew too old, the sweep wakes the workers: it never asks.
    """
    if not wake_up_waits():
        send_wake_up()


def wake_up_waits() -> bool:
    """Whether the broker holds a wake-up that no worker has fetched; one that is fetched may have looked already."""
    [queue] = current_app.amqp.queues
    try:
        with current_app.producer_or_acquire() as producer:
            # The broker's list itself is asked: a note of ours beside it could outlive the message that it stands for.
            held: int = producer.channel.client.llen(f"{queue}{producer.channel.sep}{PRIORITY}")
    except (OperationalError, RedisError, OSError, AttributeError, ValueError):
        # Whoever sends says so. A question that can't be asked must keep no wake-up back.
        return False
    return held > 0


class Sender:
    """Sends the wake-ups that are asked for: in a web process by a thread, elsewhere at once.

    By a thread, as a request should wait neither for a broker that hangs nor for Celery, which needs as long to send a
    message as the database to keep a picture. Each `ask` is followed by a turn of a worker that begins after it. The
    first after a quiet time is sent immediately; those that come within PAUSE_SECONDS of one share the next, and where
    one waits for a worker in the broker, for all workers are busy, none is sent: a message costs the web, the broker
    and a worker more than a row does, and a worker takes what is queued several at a time.
    """

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.asked, self.over = threading.Event(), threading.Event()
        self.wanted = False
        self.context: dict[str, Any] = {}

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """For the life of a web process, after its fork. What is asked for by its end is still sent."""
        self.asked.clear()
        self.over.clear()
        self.thread = thread = threading.Thread(target=self.send_until_over, name="wake-ups", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.thread = None
            self.over.set()
            self.asked.set()
            thread.join(LAST_SECONDS)

    def ask(self) -> None:
        if self.thread is None:
            send_wake_up()
            return
        # The lines of the task name the request that asked last.
        self.context = structlog.contextvars.get_contextvars()
        self.wanted = True
        self.asked.set()

    def send_until_over(self) -> None:
        while self.asked.wait():
            self.asked.clear()
            if self.wanted:
                self.wanted = False
                self.send_for(self.context)
            if self.over.is_set() and not self.asked.is_set():
                return
            self.over.wait(PAUSE_SECONDS)

    def send_for(self, context: dict[str, Any]) -> None:
        with structlog.contextvars.bound_contextvars(**context):
            try:
                send_unless_one_waits()
            except Exception:
                logger.exception("wake_up_not_sent")


sender = Sender()
