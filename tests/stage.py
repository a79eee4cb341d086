"""Starts the real servers before Django reads its settings; loaded by pytest with `-p tests.stage`."""

import gc
import inspect
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.servers import RunningServer, start_postgresql, start_redis

STAGE = Path(tempfile.mkdtemp(prefix="hematovision-tests-"))
STAGE.chmod(0o755)
os.environ["HEMATOVISION_VAR"] = str(STAGE / "var")
# Whitenoise warns of a missing folder in every test client that is made.
(STAGE / "var" / "static").mkdir(parents=True)
REDIS: RunningServer = start_redis(STAGE)
os.environ["REDIS_URL"] = REDIS.url
POSTGRESQL: RunningServer | None = None
if os.environ.get("TEST_DATABASE", "postgresql") == "postgresql":
    POSTGRESQL = start_postgresql(STAGE)
    os.environ["DATABASE_URL"] = POSTGRESQL.url
else:
    os.environ.pop("DATABASE_URL", None)


# A test that has none of these asks no database for anything.
ASKING = {"db", "transactional_db", "live_server", "django_db_setup", "server_url", "prepared"}
# These start processes that read the environment, and so the database's address, by themselves.
STARTING_PROCESSES = {"test_deployment.py", "test_supervisor.py"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--with-database", action="store_true", help="only the tests that ask the database for something")
    parser.addoption("--without-database", action="store_true", help="only the others")


def asks_the_database(item: pytest.Item) -> bool:
    fixtures: set[str] = set(getattr(item, "fixturenames", ()))
    asks = item.get_closest_marker("django_db") is not None or not ASKING.isdisjoint(fixtures)
    # Whoever asks for fixtures by their names asks for people, and those are rows.
    asks |= isinstance(item, pytest.Function) and "request" in inspect.signature(item.function).parameters
    return asks or item.path.parent.name == "faults" or item.path.name in STARTING_PROCESSES


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for option, wanted in (("--with-database", True), ("--without-database", False)):
        if config.getoption(option):
            config.hook.pytest_deselected(items=[item for item in items if asks_the_database(item) is not wanted])
            items[:] = [item for item in items if asks_the_database(item) is wanted]


def let_the_collector_forget() -> None:
    """What is loaded by now stays to the end: the collector of garbage need not walk through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 50)


def pytest_collection_finish() -> None:
    let_the_collector_forget()


def pytest_report_header() -> list[str]:
    database = POSTGRESQL.version if POSTGRESQL else "SQLite"
    return [f"database: {database}", f"broker: {REDIS.version}"]


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in (REDIS, POSTGRESQL):
        if server:
            server.stop()
    shutil.rmtree(STAGE, ignore_errors=True)
