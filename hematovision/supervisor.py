"""`make run`: prepares an instance, starts its processes, watches them, and takes every one of them down again.

The processes are ordinary ones (a broker, a Celery worker and beat, gunicorn); nothing here knows what they do.
"""

import dbm
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from hematovision.embedded import EmbeddedBroker, die_with_parent
from hematovision.readiness import Readiness

ROOT = Path(__file__).resolve().parent.parent
TICK_SECONDS = 0.2
GRACE_SECONDS = 10.0
LONGEST_DELAY = 30.0
STEADY_SECONDS = 60.0  # a process that has lived this long has started well
BROKER_SECONDS = 60.0
LOG_BYTES = 20 * 1024**2
REFUSED = 2


class CannotStart(Exception):
    """The sentence that the user reads."""


def rotate(log: Path, limit: int = LOG_BYTES) -> None:
    """Keep a log and its predecessor. Its writer holds it open for appending, so it is emptied, never replaced."""
    if log.exists() and log.stat().st_size > limit:
        log.with_suffix(".log.1").write_bytes(log.read_bytes())
        os.truncate(log, 0)


def last_lines(log: Path, count: int = 5) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-count:]


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def worker_command() -> list[str]:
    flags = ("--pool", "prefork", "--without-gossip", "--without-mingle", "--loglevel", "INFO")
    return python("celery", "-A", "hematovision", "worker", *flags)


def beat_command(var: Path) -> list[str]:
    # No pid file: the lock on the instance says who runs, and a stale file could only get in the way.
    flags = ("--schedule", str(var / "celerybeat-schedule"), "--pidfile=", "--loglevel", "INFO")
    return python("celery", "-A", "hematovision", "beat", *flags)


def drop_unreadable_schedule(var: Path) -> None:
    """Beat would end for ever over a timer file that it cannot open; without one it begins anew."""
    try:
        dbm.open(str(var / "celerybeat-schedule"), "r").close()
    except dbm.error:
        for file in var.glob("celerybeat-schedule*"):
            file.unlink()


def web_command(bind: str) -> list[str]:
    # No access log: paths and query strings may hold what must never be logged.
    kind = ("--worker-class", "hematovision.slow_clients.PatientWorker")
    # One process unless WEB_CONCURRENCY says more: two on two cores would outrun the workers.
    threads = ("--threads", "4", "--preload")
    patience = ("--timeout", "60", "--graceful-timeout", "8", "--keep-alive", "5")
    return python(
        "hematovision.web", "hematovision.wsgi", "--bind", bind, *kind, *threads, *patience, "--no-control-socket"
    )


@dataclass
class Child:
    """One process, the leader of its own process group: a Ctrl-C in the terminal reaches us alone."""

    name: str
    command: list[str]
    log: Path
    say: Callable[[str], None]
    before_start: Callable[[], None] = lambda: None
    descriptors: tuple[int, ...] = ()
    grace: float = GRACE_SECONDS
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)
    next_start: float = field(default=0.0, init=False)
    delay: float = field(default=0.0, init=False)

    def start(self) -> None:
        self.before_start()
        rotate(self.log)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.descriptors,
                process_group=0,
                preexec_fn=die_with_parent(),
            )
        self.started_at = time.monotonic()

    def tend(self) -> None:
        """Start it again if it has died; each time that it dies early doubles the wait."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.next_start:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        self.kill_group()
        steady = now - self.started_at >= STEADY_SECONDS
        self.delay = 1.0 if steady or not self.delay else min(self.delay * 2, LONGEST_DELAY)
        self.next_start = now + self.delay
        self.process = None
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self.say(f"{time.strftime('%H:%M:%S')} The {self.name} {how}; it starts again in {self.delay:.0f} s.")
        if self.delay >= 4:
            self.say(f"It keeps ending; the last lines of {self.log}:")
            for line in last_lines(self.log):
                self.say(f"  {line}")

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Ask it to finish, wait a while, then end whatever is left of its group."""
        if self.process is None:
            return
        self.process.terminate()
        deadline = time.monotonic() + self.grace
        while self.process.poll() is None and time.monotonic() < deadline and not hurry():
            time.sleep(0.05)
        self.kill_group()
        self.process.wait()
        self.process = None

    def kill_group(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):  # all gone
                os.killpg(self.process.pid, signal.SIGKILL)


class Supervisor:
    """One instance, from its first check to its last process."""

    def __init__(self) -> None:
        self.var: Path = settings.VAR_DIR
        self.port = self.valid_port()
        self.signals: list[int] = []
        self.children: list[Child] = []
        self.lock: int | None = None
        self.run_log = self.var / "run.log"
        given = os.environ.get("REDIS_URL") or os.environ.get("REDIS_URL_FILE")
        self.broker = None if given else EmbeddedBroker(self.var)

    # --- Checks: nothing is changed before all of them have passed -------------------------------------------------
    def valid_port(self) -> int:
        text = settings.PORT
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
            message = f"PORT must be a number from 1 to 65535, not {text!r}."
            raise CannotStart(message)
        return int(text)

    def open_port(self) -> socket.socket:
        """Take the port now and keep it: a web server that starts again finds it, and its callers wait meanwhile."""
        try:
            family, kind, _, _, address = socket.getaddrinfo(settings.HOST, self.port, type=socket.SOCK_STREAM)[0]
            self.check_exposure(str(address[0]))
            listener = socket.socket(family, kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            # The commonest holder of the port is this instance itself: say so, not that another port would help.
            if (self.var / "supervisor.lock").exists():
                self.take_lock()
            reason = (error.strerror or "unknown reason").lower()
            message = (
                f"Port {self.port} on {settings.HOST} cannot be opened ({reason}); HOST= and PORT= choose another."
            )
            raise CannotStart(message) from error
        return listener

    def check_exposure(self, address: str) -> None:
        if not settings.PRODUCTION and not settings.DEMO and not ip_address(address).is_loopback:
            message = (
                f"HOST={settings.HOST} would open the demo users to the network; give DEMO=1 too if that is meant, "
                "or PRODUCTION=1 for an instance without demo users."
            )
            raise CannotStart(message)

    def take_lock(self) -> None:
        """One supervisor an instance; the kernel frees the lock however the process ends."""
        try:
            self.var.mkdir(parents=True, exist_ok=True)
            (self.var / "logs").mkdir(exist_ok=True)
            self.lock = os.open(self.var / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            message = f"The folder {self.var} cannot be written: {error.strerror}."
            raise CannotStart(message) from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"This instance is running already (process {os.read(self.lock, 20).decode().strip()})."
            raise CannotStart(message) from error
        os.truncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)

    # --- Life ------------------------------------------------------------------------------------------------------
    def say(self, line: str) -> None:
        # A reader that went away, or a full disk, is no reason to stop serving.
        with suppress(OSError):
            print(line, flush=True)
        with suppress(OSError), self.run_log.open("a") as log:
            log.write(f"{line}\n")

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)

    def stopping(self) -> bool:
        return bool(self.signals)

    def hurry(self) -> bool:
        """A second Ctrl-C; SIGTERM may well come twice, from make and from whoever ended make."""
        return self.signals.count(signal.SIGINT) > 1

    def run(self) -> int:
        with self.open_port() as listener:
            self.take_lock()
            self.run_log.unlink(missing_ok=True)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, self.on_signal)
            try:
                if self.start(listener):
                    self.watch()
            finally:
                listener.close()
                self.stop()
        return 0

    def start(self, listener: socket.socket) -> bool:
        """Bring everything up in order; False if we were told to stop meanwhile."""
        if self.broker:
            self.start_broker(self.broker)
        else:
            (self.var / "broker-url").unlink(missing_ok=True)
        if not self.prepare():
            return False
        # A worker finishes the micro-batch that it holds; no task lives longer than its limit.
        self.add("worker", worker_command(), grace=settings.TASK_SECONDS + GRACE_SECONDS / 2)
        self.add("beat", beat_command(self.var), before_start=lambda: drop_unreadable_schedule(self.var))
        self.greet()
        web = web_command(f"fd://{listener.fileno()}")
        self.add("web server", web, descriptors=(listener.fileno(),))
        return True

    def add(
        self,
        name: str,
        command: list[str],
        before_start: Callable[[], None] = lambda: None,
        descriptors: tuple[int, ...] = (),
        grace: float = GRACE_SECONDS,
    ) -> Child:
        log = self.var / "logs" / f"{name.split(maxsplit=1)[0]}.log"
        child = Child(name, command, log, self.say, before_start, descriptors, grace)
        self.children.append(child)
        child.start()
        return child

    def start_broker(self, broker: EmbeddedBroker) -> None:
        child = self.add("broker", broker.command, before_start=broker.prepare)
        for attempt in (1, 2):
            deadline = time.monotonic() + BROKER_SECONDS
            while not broker.answers() and child.process and child.process.poll() is None:
                if self.stopping() or time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            if broker.answers() or self.stopping():
                broker.announce()
                return
            if attempt == 1:
                child.stop(self.hurry)
                self.say(f"The broker cannot read its data, which hold no images; set aside: {broker.set_data_aside()}")
                child.start()
        message = f"The broker does not start: {' '.join(last_lines(child.log, 1))}"
        raise CannotStart(message)

    def prepare(self) -> bool:
        """Run the preparation, passing on what it says; Ctrl-C reaches it too."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        process = subprocess.Popen(
            python("hematovision.preparation"),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            process_group=0,
            preexec_fn=die_with_parent(),
        )
        os.close(writer)
        rest = b""
        running = True
        with open(reader, "rb", buffering=0) as output:
            while running:
                running = process.poll() is None
                *lines, rest = (rest + (output.read() or b"")).split(b"\n")
                for line in lines:
                    self.say(line.decode(errors="replace"))
                if self.stopping():
                    process.terminate()
                    process.wait()
                    return False
                time.sleep(0.05)
        if process.returncode != 0:
            message = f"{rest.decode(errors='replace')}HematoVision was not started."
            raise CannotStart(message)
        return True

    def greet(self) -> None:
        """Address and demo users, before the instance is ready, so that whoever waits for it has both."""
        host = f"[{settings.HOST}]" if ":" in settings.HOST else settings.HOST
        self.say(f"HematoVision: http://{host}:{self.port}")
        users = self.var / "demo-users"
        if not settings.PRODUCTION and users.exists():
            self.say("Demo users (e-mail and password):")
            for line in users.read_text().splitlines():
                self.say(line)
        self.say("Ctrl-C stops it. Starting ...")

    def watch(self) -> None:
        readiness = Readiness(settings.HOST, self.port, settings.ALLOWED_HOSTS)
        next_rotation = time.monotonic() + 60
        while not self.stopping():
            for child in self.children:
                child.tend()
            if news := readiness.news():
                self.say(news)
            if time.monotonic() > next_rotation:
                next_rotation += 60
                for child in self.children:
                    rotate(child.log)
            time.sleep(TICK_SECONDS)

    def stop(self) -> None:
        """Web first, so that nothing new arrives; the broker last, since the others use it to the end."""
        if self.stopping():
            self.say("Stopping ...")
        for child in reversed(self.children):
            child.stop(self.hurry)
        if self.broker:
            self.broker.close()
        if self.stopping():
            self.say("Stopped.")


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hematovision.settings")
    os.umask(0o077)  # all that an instance writes is private
    try:
        return Supervisor().run()
    except (CannotStart, ImproperlyConfigured) as refusal:
        print(refusal, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or 'A file'} cannot be used: {error.strerror}.", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
