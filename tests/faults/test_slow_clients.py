"""Eight clients that send a byte a second do not keep a ninth from its page."""

import socket
import threading
import time

import pytest

from tests.faults.instance import Instance, wait_until

HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
BODY = (
    b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 100000\r\n\r\nlogin="
)


def drip(port: int, start: bytes, stop: threading.Event) -> None:
    """Come again whenever we are dropped."""
    while not stop.is_set():
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            try:
                connection.sendall(start)
                while not stop.wait(1):
                    connection.sendall(b"x")
            except OSError:
                continue


@pytest.mark.any_database
def test_page_is_answered_while_eight_clients_send_a_byte_a_second(instance: Instance) -> None:
    client = instance.client()
    instance.start("web")
    wait_until(lambda: "web" not in client.unready(), 30, "the web server answers")
    stop = threading.Event()
    slow = [
        threading.Thread(target=drip, args=(instance.port, start, stop)) for start in (HEAD, BODY) for _ in range(4)
    ]
    for thread in slow:
        thread.start()
    try:
        time.sleep(1)
        waits = []
        for _ in range(5):
            started = time.monotonic()
            status, _ = client.call("GET", "/api/v1/cases/")
            assert status == 200
            waits.append(time.monotonic() - started)
            time.sleep(1)
    finally:
        stop.set()
        for thread in slow:
            thread.join()
    print("Waits beside eight slow clients:", [round(wait, 1) for wait in waits])
    assert max(waits) < 15
