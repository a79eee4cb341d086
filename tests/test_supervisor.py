"""Starting and stopping: the sentences of refusal, the embedded broker, backups, and processes that die."""

import ast
import fcntl
import os
import shelve
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from django.db import connection
from django.db.backends.sqlite3.base import DatabaseWrapper

from hematovision import bootstrap, preparation, supervisor
from hematovision.embedded import EmbeddedBroker, ask, die_with_parent
from hematovision.readiness import Readiness
from hematovision.supervisor import Child, rotate

ROOT = Path(__file__).resolve().parent.parent
# What is started here has folders and an SQLite file of its own, whatever the database of the run is.
pytestmark = pytest.mark.any_database


def run_supervisor(var: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hematovision.supervisor"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HEMATOVISION_VAR": str(var), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    """One sentence, no traceback, and a status that scripts notice."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# --- Refusals ------------------------------------------------------------------------------------------------------
def test_taken_port_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_supervisor(tmp_path, PORT=str(port))
    assert_refused(done, f"Port {port} on 127.0.0.1 cannot be opened (address already in use)")
    assert {path.name for path in tmp_path.iterdir()} <= {"secret_key", "audit_key"}


def test_second_start_hears_of_the_first_and_not_of_its_port(tmp_path: Path) -> None:
    with (tmp_path / "supervisor.lock").open("w+") as lock, socket.create_server(("127.0.0.1", 0)) as taken:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_supervisor(tmp_path, PORT=str(taken.getsockname()[1]))
    assert_refused(done, "This instance is running already (process 4711)")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_impossible_port_is_refused(tmp_path: Path, port: str) -> None:
    assert_refused(run_supervisor(tmp_path, PORT=port), "PORT must be a number from 1 to 65535")


def test_demo_users_are_not_shown_to_the_network_by_accident(tmp_path: Path) -> None:
    assert_refused(run_supervisor(tmp_path, HOST="0.0.0.0", PORT="8765"), "would open the demo users to the network")


def test_unknown_host_is_refused(tmp_path: Path) -> None:
    assert_refused(run_supervisor(tmp_path, HOST="no.such.host.invalid"), "on no.such.host.invalid cannot be opened")


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    obstacle = tmp_path / "a file"
    obstacle.touch()
    assert_refused(run_supervisor(obstacle / "var"), "cannot be")


def test_production_without_a_key_is_refused(tmp_path: Path) -> None:
    assert_refused(run_supervisor(tmp_path, PRODUCTION="1"), "PRODUCTION=1 needs SECRET_KEY")


# --- Bootstrap -----------------------------------------------------------------------------------------------------
def test_bootstrap_names_what_this_python_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bootstrap.shortcoming() == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "apt install python3." in bootstrap.shortcoming()
    monkeypatch.setattr(bootstrap, "OLDEST", (3, 99))
    assert "HematoVision needs Python 3.99 to" in bootstrap.shortcoming()


def test_bootstrap_accepts_only_a_whole_environment_of_these_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "STAMP", str(tmp_path / "installed.json"))
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", sys.executable)
    assert bootstrap.read_stamp() == {}
    bootstrap.write_stamp({"requirements-web.txt": "abc"})
    assert bootstrap.read_stamp() == {"requirements-web.txt": "abc"}
    (tmp_path / "installed.json").write_text('{"requirements-web')
    assert bootstrap.read_stamp() == {}
    bootstrap.write_stamp({"requirements-web.txt": "abc"})
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", str(tmp_path / "gone"))
    assert bootstrap.read_stamp() == {}


def test_bootstrap_uses_no_newer_syntax_than_python_3_6() -> None:
    ast.parse((ROOT / "hematovision" / "bootstrap.py").read_text(), feature_version=(3, 6))


# --- The embedded broker -------------------------------------------------------------------------------------------
@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    made = EmbeddedBroker(tmp_path)
    yield made
    ask(made.socket, "SHUTDOWN NOSAVE")


def start(broker: EmbeddedBroker) -> subprocess.Popen[bytes]:
    broker.prepare()
    process = subprocess.Popen(broker.command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent())
    deadline = time.monotonic() + 10
    while not broker.answers() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_broker_keeps_what_it_was_told_and_recovers_from_a_torn_log(broker: EmbeddedBroker) -> None:
    process = start(broker)
    for number in range(50):
        assert ask(broker.socket, f"SET key{number} value") == "+OK"
    ask(broker.socket, "SHUTDOWN")
    process.wait(10)
    [log] = (broker.data / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 7)

    process = start(broker)
    assert broker.answers()
    assert ask(broker.socket, "GET key0").endswith("value")
    assert ask(broker.socket, "GET key49") == "$-1"
    ask(broker.socket, "SHUTDOWN")
    process.wait(10)


def test_broker_starts_over_the_socket_of_a_killed_one(broker: EmbeddedBroker) -> None:
    process = start(broker)
    process.kill()
    process.wait()
    assert broker.socket.exists()
    process = start(broker)
    assert broker.answers()
    process.kill()
    process.wait()


def test_orphaned_broker_is_ended_before_another_writes_the_same_data(broker: EmbeddedBroker) -> None:
    orphan = start(broker)
    successor = start(broker)
    assert orphan.wait(10) == 0
    assert broker.answers()
    successor.kill()
    successor.wait()


def test_unreadable_broker_data_are_set_aside(broker: EmbeddedBroker) -> None:
    process = start(broker)
    ask(broker.socket, "SET key value")
    ask(broker.socket, "SHUTDOWN")
    process.wait(10)
    for log in (broker.data / "appendonlydir").glob("*.aof"):
        log.write_bytes(b"*9\r\n$not a log\r\n" * 9)
    assert start(broker).wait(10) != 0
    aside = broker.set_data_aside()
    assert (aside / "appendonlydir").exists()
    process = start(broker)
    assert broker.answers()
    process.kill()
    process.wait()


def test_socket_lies_in_a_private_folder_with_a_short_path(broker: EmbeddedBroker, tmp_path: Path) -> None:
    folder = broker.socket.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_uid == os.getuid()
    assert len(str(EmbeddedBroker(tmp_path / ("deep/" * 40)).socket)) < 108
    assert EmbeddedBroker(tmp_path / "other").socket != broker.socket


# --- Backups -------------------------------------------------------------------------------------------------------
def database_in_use(path: Path) -> sqlite3.Connection:
    """A database in WAL mode with a row that is not yet in the main file."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE facts (text)")
    connection.execute("INSERT INTO facts VALUES ('kept')")
    connection.commit()
    return connection


def test_backup_holds_what_was_committed_and_only_five_are_kept(tmp_path: Path) -> None:
    connection = database_in_use(tmp_path / "db.sqlite3")
    backups = [preparation.back_up_sqlite(tmp_path / "db.sqlite3", tmp_path / "backups") for _ in range(7)]
    connection.close()
    assert sorted((tmp_path / "backups").iterdir()) == backups[-5:]
    with closing(sqlite3.connect(backups[-1])) as copy:
        assert copy.execute("SELECT text FROM facts").fetchall() == [("kept",)]


def test_damaged_database_is_not_migrated(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite3").write_bytes(b"not a database" * 1000)
    with pytest.raises(preparation.NotPrepared, match="could not be backed up"):
        preparation.back_up_sqlite(tmp_path / "db.sqlite3", tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == []


# --- Statistics ----------------------------------------------------------------------------------------------------
def test_start_tells_sqlite_which_tables_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any
) -> None:
    """What it said of a small table would be wrong once that has grown, so of those it says nothing."""
    own = DatabaseWrapper({**connection.settings_dict, "NAME": str(tmp_path / "db.sqlite3"), "OPTIONS": {}})
    for step in ("migrate", "run_command", "call_command"):
        monkeypatch.setattr(preparation, step, lambda *_, **__: None)
    monkeypatch.setattr(preparation, "connection", own)
    with django_db_blocker.unblock(), closing(own), own.cursor() as cursor:
        for table, rows in (("small", 100), ("large", 2 * preparation.LARGE_TABLE)):
            cursor.execute(f"CREATE TABLE {table} (kind)")
            cursor.execute(f"CREATE INDEX {table}_by_kind ON {table} (kind)")
            numbers = f"WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {rows})"
            cursor.execute(f"INSERT INTO {table} {numbers} SELECT n % 3 FROM number")

        preparation.prepare()

        cursor.execute("SELECT tbl, idx FROM sqlite_stat1")
        assert cursor.fetchall() == [("large", "large_by_kind")]


# --- Children ------------------------------------------------------------------------------------------------------
@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The supervisor's clock, which the test moves."""
    hands = SimpleNamespace(now=1000.0)
    clock = SimpleNamespace(monotonic=lambda: hands.now, strftime=time.strftime, sleep=time.sleep)
    monkeypatch.setattr(supervisor, "time", clock)
    return hands


def child(tmp_path: Path, said: list[str], script: str) -> Child:
    return Child("worker", [sys.executable, "-c", script], tmp_path / "worker.log", said.append)


def test_child_that_keeps_dying_is_started_ever_more_rarely(
    tmp_path: Path, said: list[str], clock: SimpleNamespace
) -> None:
    dying = child(tmp_path, said, "print('the reason'); raise SystemExit(3)")
    dying.start()
    delays: list[float] = []
    for _ in range(8):
        assert dying.process is not None
        dying.process.wait()
        dying.tend()
        assert dying.process is None
        delays.append(dying.delay)
        clock.now += dying.delay - 0.01
        dying.tend()
        assert dying.process is None, "it must wait its time"
        clock.now += 0.02
        dying.tend()
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]
    assert "The worker ended with exit code 3; it starts again in 1 s." in said[0]
    assert "  the reason" in said

    clock.now += 60
    assert dying.process is not None
    dying.process.wait()
    dying.tend()
    assert dying.delay == 1, "after a long life it starts again at once"


def test_stopped_child_takes_its_own_children_along(tmp_path: Path, said: list[str]) -> None:
    stubborn = child(
        tmp_path,
        said,
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(p.pid, flush=True); "
        "time.sleep(600)",
    )
    stubborn.start()
    assert stubborn.process is not None
    leader = stubborn.process.pid
    grandchild = int(wait_for_line(tmp_path / "worker.log"))
    stubborn.stop(lambda: False)
    wait_until(lambda: is_gone(leader) and is_gone(grandchild))


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time; from hematovision.embedded import die_with_parent; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], process_group=0, "
        "preexec_fn=die_with_parent()); print(p.pid, flush=True); time.sleep(600)"
    )
    with (tmp_path / "parent.log").open("wb") as log:
        parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=log)
    orphan = int(wait_for_line(tmp_path / "parent.log"))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: is_gone(orphan))


def test_only_an_unreadable_timer_file_is_dropped(tmp_path: Path) -> None:
    schedule = tmp_path / "celerybeat-schedule"
    with shelve.open(str(schedule)) as timer:
        timer["entries"] = {}
    supervisor.drop_unreadable_schedule(tmp_path)
    kept = list(tmp_path.iterdir())
    assert kept
    for file in kept:
        file.write_bytes(b"damaged" * 999)
    supervisor.drop_unreadable_schedule(tmp_path)
    assert list(tmp_path.iterdir()) == []
    supervisor.drop_unreadable_schedule(tmp_path)


def test_log_is_emptied_under_its_writer_and_one_predecessor_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        rotate(log, limit=1000)
        assert log.stat().st_size == 400
        rotate(log, limit=100)
        writer.write(b"new\n")
    assert log.read_text() == "new\n"
    assert (tmp_path / "web.log.1").read_text() == "old\n" * 100


def test_readiness_is_quiet_at_first_and_then_names_the_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    readiness = Readiness("127.0.0.1", 9, ["lab.example"])
    reasons = iter(["starting", "worker (no_worker)", "worker (no_worker)", ""])
    monkeypatch.setattr(readiness, "look", lambda: next(reasons))
    told = []
    for second in (0, 20, 40, 60):
        monkeypatch.setattr("hematovision.readiness.time.monotonic", lambda s=second: readiness.started_at + s)
        readiness.next_look = 0
        told.append(readiness.news())
    assert told == ["", "Not ready yet: worker (no_worker).", "", "Ready after 60 s."]


def wait_until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_line(path: Path) -> str:
    wait_until(lambda: path.read_text().endswith("\n"))
    return path.read_text()


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_help_names_the_two_commands() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make run " in said
    assert "make test " in said
