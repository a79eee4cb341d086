"""Starts the real servers before Django reads its settings; loaded by pytest with `-p tests.stage`."""

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


def asks_the_database(item: pytest.Item) -> bool:
    fixtures: set[str] = set(getattr(item, "fixturenames", ()))
    asks = item.get_closest_marker("django_db") is not None or not ASKING.isdisjoint(fixtures)
    return asks or item.path.parent.name == "faults" or item.path.name in STARTING_PROCESSES


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--with-database"):
        left_out = [item for item in items if not asks_the_database(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if asks_the_database(item)]


def pytest_report_header() -> list[str]:
    database = POSTGRESQL.version if POSTGRESQL else "SQLite"
    return [f"database: {database}", f"broker: {REDIS.version}"]


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in (REDIS, POSTGRESQL):
        if server:
            server.stop()
    shutil.rmtree(STAGE, ignore_errors=True)
