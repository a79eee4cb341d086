"""Every fault test gets an instance of its own, copied from one that was prepared once."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.instance import Instance
from tests.servers import RunningServer, connect_to_postgresql, start_redis

ON_SQLITE = os.environ.get("TEST_DATABASE", "postgresql") == "sqlite"
# As in life, only faster: what takes a minute there takes seconds here.
QUICK = {"CLAIM_SECONDS": "12", "TASK_SECONDS": "10", "SWEEP_SECONDS": "2"}
NEEDS_A_SERVER = {"test_database_restart.py", "test_hosts.py"}
MakeInstance = Callable[..., Instance]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
    # A file has no server that could go away, or be reached from another machine.
    elsewhere = [item for item in items if ON_SQLITE and item.path.name in NEEDS_A_SERVER]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


@pytest.fixture(scope="session")
def server_url() -> str:
    """The PostgreSQL server of this run; empty in the run on SQLite."""
    return "" if ON_SQLITE else os.environ["DATABASE_URL"]


def new_database(server_url: str, template: str = "template1") -> str:
    """The URL of a fresh database, or a copy of one that nobody is connected to."""
    if not server_url:
        return ""
    name = f"faults_{uuid.uuid4().hex[:12]}"
    with connect_to_postgresql(server_url) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
    return f"{server_url.rsplit('/', 1)[0]}/{name}"


def drop_database(server_url: str, url: str) -> None:
    if url:
        with connect_to_postgresql(server_url) as connection:
            connection.execute(f'DROP DATABASE "{url.rsplit("/", 1)[1]}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> Iterator[Instance]:
    """Migrated, with the shipped model registered, the demo users and a token made; never started itself."""
    url = new_database(server_url)
    var = tmp_path_factory.mktemp("prepared") / "an instance"  # a space in the path, as users have
    var.mkdir()
    instance = Instance(var, url)
    instance.prepare()
    instance.client()  # so that every copy has its token
    yield instance
    drop_database(server_url, url)


@pytest.fixture
def make_instance(tmp_path: Path, server_url: str, prepared: Instance) -> Iterator[MakeInstance]:
    made: list[Instance] = []

    def make(**variables: str) -> Instance:
        template = prepared.database_url.rsplit("/", 1)[-1]
        url = new_database(server_url, template)
        instance = prepared.copy_to(tmp_path / f"instance {len(made)}", url, **variables)
        made.append(instance)
        return instance

    yield make
    for instance in made:
        instance.end()
        drop_database(server_url, instance.database_url)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RunningServer]:
    server = start_redis(tmp_path / "redis", own=True)
    yield server
    server.stop()


@pytest.fixture
def instance(make_instance: MakeInstance, redis: RunningServer) -> Instance:
    return make_instance(REDIS_URL=redis.url, **QUICK)
