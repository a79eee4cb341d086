"""PostgreSQL goes away in the middle of everything and comes back: sentences meanwhile, and nothing lost."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.client import Client
from tests.faults.conftest import QUICK
from tests.faults.instance import Instance, pictures, wait_until
from tests.servers import RunningServer, start_postgresql

BEFORE, AFTER = 30, 10


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that may be taken away, and that keeps what it said it has."""
    server = start_postgresql(tmp_path / "postgresql", own=True, durable=True)
    yield server
    server.stop()


@pytest.fixture
def alone(tmp_path: Path, own_server: RunningServer, redis: RunningServer) -> Iterator[Instance]:
    var = tmp_path / "instance"
    var.mkdir()
    instance = Instance(var, own_server.url, REDIS_URL=redis.url, **QUICK)
    instance.prepare()
    yield instance
    instance.end()


def asked(instance: Instance, path: str, **headers: str) -> tuple[int, http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer, answer.read().decode()
    finally:
        connection.close()


def upload_as_long_as_it_takes(client: Client, case: str, picture: bytes) -> str:
    """As a script would: 503 means again, and the same picture is the same image."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.upload(case, picture)
        except (AssertionError, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_database_that_restarts_loses_nothing_and_everybody_recovers(
    alone: Instance, own_server: RunningServer
) -> None:
    client = alone.client()
    alone.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")
    case = client.open_case()
    images = [client.upload(case, picture) for picture in pictures(BEFORE)]
    wait_until(lambda: alone.statuses().get("classified"), 60, "classification has begun")
    assert alone.statuses() != {"classified": BEFORE}, "everything was classified, so this would prove nothing"
    processes = {name: process.pid for name, process in alone.processes.items()}

    own_server.pause()

    status, answer, body = asked(alone, f"/api/v1/images/{images[0]}/", Authorization=f"Token {client.token}")
    assert status == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["code"] == "database_unavailable"
    status, _, page = asked(alone, "/", Cookie=f"hematovision_session={'0' * 32}")
    assert status == 503
    assert "The database does not answer at the moment" in page
    assert "Traceback" not in page
    assert client.unready()["database"] == "database_unavailable"
    assert asked(alone, "/healthz")[0] == 200
    status, _, numbers = asked(alone, "/metrics")
    assert status == 200
    assert "hematovision_database_up 0.0" in numbers
    time.sleep(3 * float(QUICK["SWEEP_SECONDS"]))

    own_server.restart()
    began = time.monotonic()
    wait_until(lambda: not client.unready(), 30, "the instance is ready")
    ready = time.monotonic() - began
    images += [upload_as_long_as_it_takes(client, case, picture) for picture in pictures(BEFORE + AFTER)[BEFORE:]]
    took = wait_until(lambda: alone.statuses() == {"classified": BEFORE + AFTER}, 90, "every image is classified")
    assert len(set(images)) == BEFORE + AFTER
    assert alone.predictions() == (BEFORE + AFTER, BEFORE + AFTER)
    assert {name: process.pid for name, process in alone.processes.items()} == processes
    assert all(process.poll() is None for process in alone.processes.values()), "nobody had to be started again"
    print(f"Ready {ready:.1f} s after the database was back; all was classified {took:.1f} s after the last upload.")
