"""A pool process that is told to stop while it has a task ends after it; an idle one ends as ever."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hematovision.stopping import Stop


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """The signals at which this process would have ended, were it not the tests'."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


def tell() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_busy_process_ends_after_its_task_however_often_it_is_told(
    ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hematovision.stopping.LAST_WORDS_SECONDS", 0.01)
    stop = Stop()
    stop.begin()
    tell()
    tell()
    assert ended == []

    stop.end()

    deadline = time.monotonic() + 5
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == [signal.SIGTERM]


def test_idle_process_ends_as_ever(ended: list[int]) -> None:
    stop = Stop()
    stop.begin()
    stop.end()
    tell()

    assert ended == [signal.SIGTERM]


def test_task_in_another_thread_changes_nothing(ended: list[int]) -> None:
    stop = Stop()
    before: Any = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop.begin)
    thread.start()
    thread.join()

    assert signal.getsignal(signal.SIGTERM) is before
