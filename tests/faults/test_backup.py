"""The drill: back up while everything works, restore into an empty instance, and find everything as it was."""

import gzip
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.client import Client
from tests.faults.conftest import QUICK, drop_database, new_database
from tests.faults.instance import Instance, wait_until
from tests.pictures import jpeg_of_cell
from tests.servers import RunningServer

MakeEmpty = Callable[..., Instance]
KEYS = ("secret_key", "audit_key")


@pytest.fixture
def make_empty(tmp_path: Path, server_url: str, instance: Instance) -> Iterator[MakeEmpty]:
    """Instances that hold nothing but the keys of the one that is backed up."""
    made: list[Instance] = []

    def make(name: str, *, on_sqlite: bool = False) -> Instance:
        var = tmp_path / name
        var.mkdir()
        for key in KEYS:
            shutil.copy(instance.var / key, var / key)
        variables = {"REDIS_URL": instance.environment["REDIS_URL"], **QUICK}
        made.append(Instance(var, "" if on_sqlite else new_database(server_url), **variables))
        return made[-1]

    yield make
    for each in made:
        each.end()
        drop_database(server_url, each.database_url)


@contextmanager
def load(client: Client, stored: list[str]) -> Iterator[None]:
    """Somebody uploads and somebody reviews, as fast as they can, all the time."""
    over = threading.Event()
    faults: list[BaseException] = []

    def upload(case: str) -> None:
        try:
            while not over.is_set():
                stored.append(client.upload(case, jpeg_of_cell(len(stored))))
                # Not as many as there can be: that would only keep the backup waiting.
                time.sleep(0.02)
        except BaseException as error:
            faults.append(error)
            raise

    def review() -> None:
        done = 0
        while not over.is_set():
            if done < len(stored) and client.image(stored[done])["status"] == "classified":
                body = json.dumps({"verdict": "UNUSABLE"}).encode()
                client.call("POST", f"/api/v1/images/{stored[done]}/reviews/", body)
                done += 1
            time.sleep(0.02)

    threads = [threading.Thread(target=upload, args=(client.open_case(),)), threading.Thread(target=review)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not faults


def tables_in(backup: Path) -> dict[str, list[str]]:
    """The lines of each table, in no order that matters: databases sort ids in their own ways."""
    return {
        path.name: sorted(gzip.decompress(path.read_bytes()).decode().splitlines())
        for path in (backup / "database").iterdir()
    }


def files_in(backup: Path) -> set[str]:
    lines = (backup / "files.sha256").read_text().splitlines()
    return {line for line in lines if not line.split("  ")[1].startswith("database/")}


@pytest.mark.timeout(900)
def test_backup_under_load_is_restored_whole_and_moves_between_databases(
    instance: Instance, redis: RunningServer, make_empty: MakeEmpty, tmp_path: Path
) -> None:
    client = instance.client()
    instance.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")
    wait_until(lambda: instance.rows("SELECT count(*) FROM accounts_auditseal") > [(0,)], 90, "a seal is set")
    backup, stored = tmp_path / "backup", list[str]()
    with load(client, stored):
        wait_until(lambda: instance.statuses().get("reviewed", 0) > 5, 60, "some are reviewed")
        before = len(stored)
        instance.manage("backup", str(backup))
        during = len(stored) - before
    assert during, "nothing was uploaded while the backup was made, so this would prove nothing"
    for name in ("web", "worker", "beat"):
        instance.stop(name)
    rows = json.loads((backup / "manifest.json").read_text())["rows"]
    assert before <= rows["classifier_cellimage"] <= len(stored)

    restored = make_empty("restored")
    said = restored.manage("restore", str(backup))
    assert "Sound" in said
    again = tmp_path / "again"
    restored.manage("backup", str(again))
    assert tables_in(again) == tables_in(backup)
    assert files_in(again) == files_in(backup)
    restored.manage("verify_audit", "--heads", str(restored.var / "audit-heads.jsonl"))

    # It lives: tokens open it, what was being classified is taken up again, and new pictures come in.
    restored.start("web", "worker", "beat")
    there = Client(restored.port, client.token)
    wait_until(lambda: not there.unready(), 60, "the restored instance is ready")
    assert there.image(stored[0])["status"] == "reviewed"
    there.upload(there.open_case(), jpeg_of_cell(1))
    wait_until(lambda: not {"queued", "claimed"} & set(restored.statuses()), 60, "all that was under way is classified")
    for name in ("web", "worker", "beat"):
        restored.stop(name)
    assert restored.predictions()[0] == restored.predictions()[1]

    if instance.database_url:
        # From PostgreSQL to SQLite and back: the way by which an instance grows.
        small, large = make_empty("small", on_sqlite=True), make_empty("large")
        small.manage("restore", str(backup))
        small.manage("backup", str(tmp_path / "of-small"))
        assert tables_in(tmp_path / "of-small") == tables_in(backup)
        large.manage("restore", str(tmp_path / "of-small"))
        large.manage("backup", str(tmp_path / "of-large"))
        assert tables_in(tmp_path / "of-large") == tables_in(backup)
        assert files_in(tmp_path / "of-large") == files_in(backup)
    print(f"{rows['classifier_cellimage']} images backed up, {during} uploaded meanwhile.")
