"""Clients that send a byte now and then hold no thread for ever, and never all of them."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hematovision import slow_clients
from hematovision.slow_clients import TimedUnreader, TooSlow

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "FAST_SECONDS", 0.2)
    monkeypatch.setattr(slow_clients, "SLOW_SECONDS", 0.6)
    monkeypatch.setattr(slow_clients, "MOMENT", 0.02)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_what_comes_in_time_is_read_and_the_socket_left_as_it_was(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")

    assert TimedUnreader(ours, threading.BoundedSemaphore(1)).chunk() == b"GET / HTTP/1.1\r\n\r\n"
    assert ours.gettimeout() is None


def test_client_that_sends_nothing_is_dropped_in_the_end(pair: Pair) -> None:
    started = time.monotonic()

    with pytest.raises(TooSlow):
        TimedUnreader(pair[0], threading.BoundedSemaphore(1)).chunk()

    assert 0.5 < time.monotonic() - started < 5


def test_client_of_a_byte_now_and_then_is_dropped_in_the_end(pair: Pair) -> None:
    ours, theirs = pair
    unreader, stop = TimedUnreader(ours, threading.BoundedSemaphore(1)), threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            theirs.send(b"x")

    sender = threading.Thread(target=drip)
    sender.start()
    try:
        with pytest.raises(TooSlow):
            list(iter(unreader.chunk, b""))
    finally:
        stop.set()
        sender.join()
    assert unreader.received > 2


def test_slow_client_is_dropped_at_once_where_others_hold_the_places(pair: Pair) -> None:
    places = threading.BoundedSemaphore(1)
    places.acquire()
    started = time.monotonic()

    with pytest.raises(TooSlow):
        TimedUnreader(pair[0], places).chunk()

    assert time.monotonic() - started < 0.5


def test_what_has_arrived_is_read_however_late_it_is_asked_for(pair: Pair) -> None:
    ours, theirs = pair
    places = threading.BoundedSemaphore(1)
    places.acquire()
    unreader = TimedUnreader(ours, places)
    theirs.sendall(b"body")
    time.sleep(0.7)

    assert unreader.chunk() == b"body"


def test_next_request_of_a_connection_has_its_own_time(pair: Pair) -> None:
    ours, theirs = pair
    unreader = TimedUnreader(ours, threading.BoundedSemaphore(1))
    time.sleep(0.7)
    unreader.begin()
    theirs.sendall(b"x")

    assert unreader.chunk() == b"x"
    assert unreader.seconds_left(0.6, 1024) > 0
