"""A whole HematoVision in a folder of its own, made of the real processes, to be broken in tests."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from hematovision.embedded import die_with_parent
from hematovision.supervisor import beat_command, python, web_command, worker_command
from tests.faults.client import Client
from tests.pictures import jpeg_of_cell, real_image_files
from tests.servers import connect_to_postgresql

ROOT = Path(__file__).resolve().parents[2]


def wait_until(true: Callable[[], Any], seconds: float, what: str) -> float:
    """Wait for a condition; returns how long it took."""
    started = asked = time.monotonic()
    while not true():
        if time.monotonic() - started > seconds:
            message = f"After {seconds:.0f} s it is still not so: {what}"
            raise AssertionError(message)
        # Whoever asks an instance all the time keeps it from what is waited for.
        time.sleep(min(0.01 + 3 * (time.monotonic() - asked), 0.2))
        asked = time.monotonic()
    return time.monotonic() - started


def pictures(count: int) -> list[bytes]:
    """Different pictures: real cells as far as there are any, then drawn ones."""
    real = [file.read_bytes() for file in real_image_files()[:count]]
    return real + [jpeg_of_cell(seed) for seed in range(count - len(real))]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Instance:
    """One folder, one database, its processes. `database_url` is empty for the folder's own SQLite file."""

    def __init__(self, var: Path, database_url: str, **variables: str) -> None:
        self.var = var
        self.port = free_port()
        self.database_url = database_url
        self.environment = {
            **{"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HEMATOVISION_VAR": str(var)},
            **({"DATABASE_URL": database_url} if database_url else {}),
            **variables,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.token = ""

    # --- Processes -------------------------------------------------------------------------------------------------
    def start(self, *names: str) -> None:
        commands = {
            "web": web_command(f"127.0.0.1:{self.port}"),
            "worker": worker_command(),
            "beat": beat_command(self.var),
            "supervisor": python("hematovision.supervisor"),
            "make": ["make", "--silent", "run", f"PYTHON={sys.executable}"],
        }
        for name in names:
            with (self.var / f"{name}-output.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    commands[name],
                    cwd=ROOT,
                    env={**self.environment, "PORT": str(self.port)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                    preexec_fn=die_with_parent(),
                )

    def kill(self, name: str) -> None:
        """`kill -9` of a process and all that it started."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_pool_child(self) -> None:
        """`kill -9` of the process that classifies; the worker that manages it lives on."""
        children = psutil.Process(self.processes["worker"].pid).children()
        assert len(children) == 1
        children[0].kill()

    def stop(self, name: str, seconds: float = 30) -> int:
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(seconds)

    def end(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def living(self) -> list[str]:
        """The processes of this instance, however they were started and whoever is their parent now."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("HEMATOVISION_VAR") == str(self.var)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def output(self, name: str) -> str:
        return (self.var / f"{name}-output.log").read_text(errors="replace")

    # --- Doors -----------------------------------------------------------------------------------------------------
    def manage(self, *arguments: str) -> str:
        return self.run(sys.executable, "manage.py", *arguments)

    def prepare(self) -> str:
        return self.run(*python("hematovision.preparation"))

    def run(self, *command: str, seconds: float = 120) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=seconds
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def client(self) -> Client:
        self.token = self.token or self.manage("create_token", "technologist@demo.example").splitlines()[-1]
        return Client(self.port, self.token)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database itself, beside all code that is under test."""
        if self.database_url:
            with connect_to_postgresql(self.database_url) as connection:
                return connection.execute(query.encode()).fetchall()
        reader = sqlite3.connect(f"file:{self.var / 'db.sqlite3'}?mode=ro", uri=True, timeout=20)
        try:
            return reader.execute(query).fetchall()
        finally:
            reader.close()

    def statuses(self) -> dict[str, int]:
        return dict(self.rows("SELECT status, count(*) FROM classifier_cellimage GROUP BY status"))

    def predictions(self) -> tuple[int, int]:
        """How many predictions there are, and of how many different images."""
        [(every, different)] = self.rows("SELECT count(*), count(DISTINCT image_id) FROM classifier_prediction")
        return every, different

    def copy_to(self, var: Path, database_url: str, **variables: str) -> "Instance":
        shutil.copytree(self.var, var)
        copy = Instance(var, database_url, **variables)
        copy.token = self.token  # it is among the rows
        return copy
