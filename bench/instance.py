"""An instance of its own for every measurement: a folder, a database, a broker, the real processes on a free port."""

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.faults.instance import Instance, wait_until
from tests.servers import RunningServer, connect_to_postgresql, start_postgresql, start_redis

START_SECONDS = 120
DATABASES = ("sqlite", "postgresql")
MEBIBYTE = 1024**2


class Servers:
    """A PostgreSQL as one sets it up for data that matter, and brokers; nobody else's, on private sockets."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.postgresql = start_postgresql(place / "postgresql", own=True, durable=True)
        self.numbers = itertools.count(1)

    def fresh_database(self, kind: str) -> str:
        """The URL of an empty database; empty text stands for an instance's own SQLite file."""
        if kind == "sqlite":
            return ""
        name = f"bench_{next(self.numbers)}"
        with connect_to_postgresql(self.postgresql.url) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"{self.postgresql.url.rpartition('/')[0]}/{name}"

    @contextmanager
    def broker(self) -> Iterator[RunningServer]:
        started = start_redis(self.place / f"broker-{next(self.numbers)}", own=True)
        try:
            yield started
        finally:
            started.stop()


@contextmanager
def servers() -> Iterator[Servers]:
    place = Path(tempfile.mkdtemp(prefix="hv-bench-"))
    with ExitStack() as left:
        left.callback(shutil.rmtree, place, ignore_errors=True)
        started = Servers(place)
        left.callback(started.postgresql.stop)
        yield started


@contextmanager
def instance(of: Servers, database: str, *, workers: int = 1, threads: int = 1) -> Iterator["MeasuredInstance"]:
    """A prepared instance without processes, with the settings of `make run` but for the worker's."""
    var = Path(tempfile.mkdtemp(prefix="hv-bench-"))
    with of.broker() as broker, ExitStack() as left:
        left.callback(shutil.rmtree, var, ignore_errors=True)
        made = MeasuredInstance(
            var,
            of.fresh_database(database),
            REDIS_URL=broker.url,
            WORKER_PROCESSES=str(workers),
            MODEL_THREADS=str(threads),
        )
        made.servers = {"broker": broker, **({"postgresql": of.postgresql} if database == "postgresql" else {})}
        left.callback(made.end)
        made.prepare()
        yield made


class MeasuredInstance(Instance):
    """An instance whose processes' memory and processor time are looked at."""

    servers: Mapping[str, RunningServer]

    @cached_property
    def asking(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A kept connection to PostgreSQL: opening one takes the server as long as classifying a picture."""
        return connect_to_postgresql(self.database_url)

    def end(self) -> None:
        super().end()
        if "asking" in vars(self):
            self.asking.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.asking.execute(query.encode()).fetchall() if self.database_url else super().rows(query)

    def stage(self, pictures: Sequence[Path]) -> None:
        """Queue pictures through the service that every door uses, while nobody classifies."""
        names = self.var / "pictures.txt"
        names.write_text("\n".join(map(str, pictures)))
        self.run(sys.executable, "-m", "bench.inside", "bench.queue_pictures", str(names), seconds=1800)

    def start_all(self) -> None:
        self.start("worker", "beat", "web")
        wait_until(lambda: not self.client().unready(), START_SECONDS, "the instance is ready")

    def classified(self) -> int:
        return self.statuses().get("classified", 0)

    def tree(self, name: str) -> list[psutil.Process]:
        """A process of ours with all that it started."""
        server = self.servers.get(name)
        process = server.process if server else self.processes[name]
        if process is None:
            return []
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]

    def memory_mb(self, name: str) -> float:
        """The largest resident memory of a process that serves: of gunicorn's or Celery's children."""
        return max((each.memory_info().rss for each in self.tree(name)[1:]), default=0) / MEBIBYTE

    def processor_seconds(self) -> dict[str, float]:
        """What each part has used of the processors so far; `clients` is the process that asks."""
        own = os.times()
        used = {"clients": own.user + own.system}
        for name in (*self.processes, *self.servers):
            used[name] = seconds_of(self.tree(name))
        return used


def seconds_of(processes: Sequence[psutil.Process]) -> float:
    """Seconds of processor time of processes, and of their children that have ended: those are counted nowhere else."""
    used = 0.0
    for process in processes:
        # One may end while the others are asked.
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used


def used_since(before: Mapping[str, float], now: Mapping[str, float], pictures: int) -> dict[str, float]:
    """Milliseconds of processor time a picture, of each part."""
    return {name: 1000 * (now[name] - before[name]) / pictures for name in now if name in before}
