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


def pytest_report_header() -> list[str]:
    database = POSTGRESQL.version if POSTGRESQL else "SQLite"
    return [f"database: {database}", f"broker: {REDIS.version}"]


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in (REDIS, POSTGRESQL):
        if server:
            server.stop()
    shutil.rmtree(STAGE, ignore_errors=True)
