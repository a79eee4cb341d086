"""What `make run` starts, as a whole: it becomes ready, classifies, mends itself, and leaves nothing behind."""

import os
import re
import signal
import sqlite3
from contextlib import closing

import psutil
import pytest

from tests.faults.conftest import QUICK, MakeInstance
from tests.faults.instance import Instance, free_port, pictures, wait_until


def start(instance: Instance, name: str = "supervisor") -> float:
    client = instance.client()
    instance.start(name)
    process = instance.processes[name]

    def ready() -> bool:
        assert process.poll() is None, instance.output(name)
        return not client.unready()

    return wait_until(ready, 90, "the instance is ready")


def wait_until_said(instance: Instance, sentence: str) -> None:
    wait_until(lambda: sentence in instance.output("supervisor"), 10, f"the supervisor says: {sentence}")


def process_of(instance: Instance, word: str) -> psutil.Process:
    """The child of the supervisor that the word names."""
    supervisor = psutil.Process(instance.processes["supervisor"].pid)
    [found] = [child for child in supervisor.children() if word in " ".join(child.cmdline())]
    return found


def test_instance_starts_classifies_stops_and_keeps_its_data(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    start(instance, "make")
    said = instance.output("make")
    assert f"http://127.0.0.1:{instance.port}\n" in said
    assert len(re.findall(r"^(technologist|reader|auditor|admin)@demo\.example \S+$", said, re.MULTILINE)) == 4
    assert said.index("admin@demo.example") < said.index("Starting")
    assert (instance.var / "run.log").read_text() in said

    client = instance.client()
    image = client.upload(client.open_case(), pictures(1)[0])
    wait_until(lambda: client.image(image)["status"] == "classified", 30, "the image is classified")

    assert len(instance.living()) >= 6
    instance.stop("make")
    assert instance.living() == [], "whoever ends make ends all that it started"
    assert instance.output("make").splitlines()[-1] == "Stopped."
    assert not (instance.var / "broker-url").exists()

    took = start(instance)
    assert client.image(image)["status"] == "classified"
    assert instance.predictions() == (1, 1)
    print(f"The second start took {took:.1f} s.")
    instance.processes["supervisor"].send_signal(signal.SIGINT)
    assert instance.processes.pop("supervisor").wait(30) == 0
    assert instance.living() == []


@pytest.mark.any_database
def test_every_process_that_dies_is_started_again(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    start(instance)
    client = instance.client()
    for word, name in {"valkey": "broker", " worker ": "worker", " beat ": "beat", "gunicorn": "web server"}.items():
        process_of(instance, word).kill()
        wait_until_said(instance, f"The {name} was ended by SIGKILL; it starts again in 1 s.")
    image = client.upload(client.open_case(), pictures(1)[0])
    wait_until(lambda: client.image(image)["status"] == "classified", 60, "an image is classified afterwards")
    wait_until(lambda: not client.unready(), 60, "the instance is ready again")


@pytest.mark.any_database
def test_second_supervisor_is_refused_and_nothing_survives_a_killed_one(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    start(instance)
    first = instance.processes.pop("supervisor")
    used, instance.port = instance.port, free_port()
    instance.start("supervisor")
    assert instance.processes.pop("supervisor").wait(20) == 2
    assert f"running already (process {first.pid})" in instance.output("supervisor")
    instance.port = used
    assert not instance.client().unready(), "the first one must not notice"

    os.kill(first.pid, signal.SIGKILL)  # the supervisor alone, not its group
    first.wait()
    wait_until(lambda: instance.living() == [], 15, "no process of the instance is left")
    start(instance)


def test_pending_migrations_are_applied_after_a_backup(make_instance: MakeInstance) -> None:
    instance = make_instance()
    instance.manage("migrate", "sessions", "zero")
    said = instance.prepare()
    assert "Migrating the database (1 steps)" in said
    backups = list(instance.var.glob("backups/*.sqlite3"))
    if instance.database_url:
        assert "backups of PostgreSQL are the operator's" in said
        assert backups == []
    else:
        [backup] = backups
        assert f"The database is backed up before the upgrade: {backup}" in said
        with closing(sqlite3.connect(backup)) as copy:
            [(users,)] = copy.execute("SELECT count(*) FROM accounts_user").fetchall()
            tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master")}
        assert users == 4
        assert "django_session" not in tables, "the copy must be from before the migration"
    assert "Migrating" not in instance.prepare()
    assert len(list(instance.var.glob("backups/*.sqlite3"))) == len(backups)
