"""Wake-ups wait behind what must happen in time."""

import threading
import time
from typing import Any

import pytest
import structlog
from celery import current_app
from kombu import Consumer

from classifier import wakeup
from classifier.wakeup import Sender, send_wake_up


def test_sweeps_and_seals_overtake_the_wake_ups_of_many_uploads() -> None:
    with current_app.connection_for_read() as broker:
        [queue] = [queue(broker.default_channel) for queue in current_app.amqp.queues.values()]
        queue.purge()
        for _ in range(3):
            send_wake_up()
        current_app.send_task("accounts.seal_audit")

        order: list[str] = []

        def take(body: object, message: object) -> None:
            order.append(message.headers["task"])  # type: ignore[attr-defined]
            message.ack()  # type: ignore[attr-defined]

        with Consumer(broker.default_channel, [queue], callbacks=[take], accept=["json"]):
            for _ in range(4):
                broker.drain_events(timeout=5)

    assert order == ["accounts.seal_audit", *["classifier.classify_queued"] * 3]


# --- The thread of a web process -------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The context of each wake-up that is sent; nothing reaches the broker."""
    contexts: list[dict[str, Any]] = []
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

    monkeypatch.setattr(wakeup, "send_wake_up", slow)
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
    monkeypatch.setattr(wakeup, "send_wake_up", lambda: hung.wait(5))
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

    monkeypatch.setattr(wakeup, "send_wake_up", broken)
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
