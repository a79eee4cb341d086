"""Wake-ups wait behind what must happen in time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from celery import current_app
from kombu import Consumer

from classifier import wakeup
from classifier.wakeup import CLASSIFY_QUEUED, Sender, send_unless_one_waits, send_wake_up, wake_up_waits
from tests.servers import RunningServer


class Fetcher:
    """Fetches messages as a worker does, and never finishes their tasks."""

    def __init__(self, broker: Any, queue: Any) -> None:
        self.broker, self.queue = broker, queue
        self.fetched: list[str] = []

    def take(self, body: object, message: Any) -> None:
        self.fetched.append(message.headers["task"])

    def fetch(self, count: int) -> list[str]:
        for _ in range(count):
            self.broker.drain_events(timeout=5)
        return self.fetched


@contextmanager
def worker() -> Iterator[Fetcher]:
    """Of an empty queue in the real broker, which is empty again afterwards."""
    with current_app.connection_for_read() as broker:
        [queue] = [queue(broker.default_channel) for queue in current_app.amqp.queues.values()]
        queue.purge()
        fetcher = Fetcher(broker, queue)
        with Consumer(broker.default_channel, [queue], callbacks=[fetcher.take], accept=["json"], no_ack=True):
            yield fetcher
        queue.purge()


def test_sweeps_and_seals_overtake_the_wake_ups_of_many_uploads() -> None:
    with worker() as fetcher:
        for _ in range(3):
            send_wake_up()
        current_app.send_task("accounts.seal_audit")

        assert fetcher.fetch(4) == ["accounts.seal_audit", *[CLASSIFY_QUEUED] * 3]


# --- One that waits serves everybody --------------------------------------------------------------------------------


def test_no_wake_up_is_sent_beside_one_that_no_worker_has_fetched() -> None:
    with worker() as fetcher:
        for _ in range(5):
            send_unless_one_waits()
        # A sweep is no wake-up: it serves nobody who asks for one, and is in nobody's way.
        current_app.send_task("classifier.sweep_expired_claims")

        assert fetcher.fetch(2) == ["classifier.sweep_expired_claims", CLASSIFY_QUEUED]
        assert not wake_up_waits()


def test_what_waits_for_other_tasks_only_is_woken_for() -> None:
    with worker() as fetcher:
        current_app.send_task("accounts.seal_audit")
        send_unless_one_waits()

        assert fetcher.fetch(2) == ["accounts.seal_audit", CLASSIFY_QUEUED]


def test_wake_up_that_a_worker_has_fetched_may_have_looked_already_so_another_is_sent() -> None:
    with worker() as fetcher:
        send_unless_one_waits()
        assert fetcher.fetch(1) == [CLASSIFY_QUEUED]
        send_unless_one_waits()

        assert fetcher.fetch(1) == [CLASSIFY_QUEUED] * 2


def test_sweep_and_a_worker_whose_turn_is_over_wake_without_asking() -> None:
    """So a wake-up that was lost, or that grew too old, costs no more than the time to the next sweep."""
    with worker() as fetcher:
        send_unless_one_waits()
        send_wake_up()

        assert fetcher.fetch(2) == [CLASSIFY_QUEUED] * 2


def test_messages_that_the_broker_loses_hold_nothing_up() -> None:
    with worker() as fetcher:
        send_unless_one_waits()
        fetcher.queue.purge()
        send_unless_one_waits()

        assert fetcher.fetch(1) == [CLASSIFY_QUEUED]


def test_broker_that_is_away_is_woken_for_once_it_is_back(redis_server: RunningServer) -> None:
    with worker():
        send_unless_one_waits()
    redis_server.pause()
    with structlog.testing.capture_logs() as lines:
        send_unless_one_waits()
    redis_server.restart()

    assert [line["event"] for line in lines] == ["wake_up_not_sent"]
    with worker() as fetcher:
        send_unless_one_waits()

        assert fetcher.fetch(1) == [CLASSIFY_QUEUED]


# --- The thread of a web process -------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The context of each wake-up that is sent; nothing reaches the broker."""
    contexts: list[dict[str, Any]] = []
    monkeypatch.setattr(wakeup, "wake_up_waits", lambda: False)
    monkeypatch.setattr(wakeup, "send_wake_up", lambda: contexts.append(structlog.contextvars.get_contextvars()))
    return contexts


def test_outside_a_web_process_a_wake_up_is_sent_at_once(sent: list[dict[str, Any]]) -> None:
    Sender().ask()

    assert len(sent) == 1


def test_whatever_is_asked_for_is_followed_by_a_wake_up_and_a_burst_costs_few(sent: list[dict[str, Any]]) -> None:
    sender = Sender()
    with sender.in_background():
        for _ in range(200):
            sender.ask()

    assert 1 <= len(sent) <= 3


def test_wake_up_asked_for_while_one_is_sent_begins_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    sends: list[int] = []

    def slow() -> None:
        sends.append(len(sends))
        begun.release()
        go_on.wait(5)

    monkeypatch.setattr(wakeup, "send_unless_one_waits", slow)
    sender = Sender()
    with sender.in_background():
        sender.ask()
        assert begun.acquire(timeout=5)
        sender.ask()
        go_on.set()
        assert begun.acquire(timeout=5)

    assert sends == [0, 1]


def test_broker_that_hangs_holds_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()
    monkeypatch.setattr(wakeup, "send_unless_one_waits", lambda: hung.wait(5))
    monkeypatch.setattr(wakeup, "LAST_SECONDS", 0.01)
    sender = Sender()
    started = time.monotonic()
    with sender.in_background():
        for _ in range(100):
            sender.ask()
    hung.set()

    assert time.monotonic() - started < 2


def test_nothing_is_sent_that_nobody_asked_for(sent: list[dict[str, Any]]) -> None:
    with Sender().in_background():
        pass

    assert sent == []


def test_thread_outlives_a_wake_up_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    sends = threading.Semaphore(0)

    def broken() -> None:
        sends.release()
        raise RuntimeError

    monkeypatch.setattr(wakeup, "send_unless_one_waits", broken)
    sender = Sender()
    with sender.in_background():
        for _ in range(2):
            sender.ask()
            assert sends.acquire(timeout=5)


def test_wake_up_names_the_request_that_asked_last(sent: list[dict[str, Any]]) -> None:
    sender = Sender()
    with structlog.contextvars.bound_contextvars(request_id="r-7"), sender.in_background():
        sender.ask()

    assert sent[0]["request_id"] == "r-7"


def test_thread_can_be_had_again_after_its_end(sent: list[dict[str, Any]]) -> None:
    sender = Sender()
    for _ in range(2):
        with sender.in_background():
            sender.ask()
    sender.ask()

    assert len(sent) == 3
