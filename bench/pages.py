"""How long pages and lists take in this instance (`bench.inside bench.pages [WORDS]`): one JSON object on stdout.

People of every role ask, in this process, so that nothing but the page is measured. `WORDS` measure only the pages
whose names hold them. The pages themselves stand in `bench.asked`.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
from django.conf import settings
from django.core.cache import cache
from django.db import Error, connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Laboratory
from bench.asked import questions
from classifier import desk_days, kept_totals
from ml.progress import Progress

ROUNDS = 5
LONGEST_SECONDS = 3.0
LONGEST_LINE = 500


class Processor:
    """Seconds of processor time of this process, and of the PostgreSQL processes that work for it."""

    def __init__(self) -> None:
        self.server: list[psutil.Process] = []
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                backend = psutil.Process(cursor.fetchone()[0])
            self.server = [backend, *([backend.parent()] if backend.parent() else [])]  # type: ignore[list-item]

    def seconds(self) -> float:
        used = time.process_time()
        for place, process in enumerate(self.server):
            times = process.cpu_times()
            # What parallel workers used is counted with their parent, once they have ended.
            used += times.children_user + times.children_system if place else times.user + times.system
        return used


def first_ms(ask: Callable[[], object]) -> float | None:
    """How long it takes where totals are asked for that nobody has counted yet; None where none are asked for."""
    kept = [*kept_totals.KEPT, *map(desk_days.name_of, Laboratory.objects.all())]
    cache.delete_many(kept)
    ask()
    if not cache.get_many(kept):
        return None
    # Once more: the very first time also loads templates and the like.
    cache.delete_many(kept)
    return elapsed_ms(ask)


def elapsed_ms(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    ask()
    return 1000 * (time.perf_counter() - started)


def measured(ask: Callable[[], object], processor: Processor) -> dict[str, Any]:
    first = first_ms(ask)
    times: list[float] = []
    before = processor.seconds()
    while len(times) < ROUNDS and sum(times) < 1000 * LONGEST_SECONDS:
        times.append(elapsed_ms(ask))
    used = 1000 * (processor.seconds() - before) / len(times)
    with CaptureQueriesContext(connection) as queries:
        ask()
    return {
        **({} if first is None else {"first_ms": first}),
        "median_ms": statistics.median(times),
        "least_ms": min(times),
        "processor_ms": used,
        "queries": len(queries),
        "plan": plan(queries.captured_queries),
    }


def plan(queries: list[dict[str, str]]) -> list[str]:
    """How the database runs the slowest of the SELECTs; the first line says for how long it was away."""
    selects = [each for each in queries if each["sql"].startswith("SELECT")]
    slowest = max(selects, key=lambda each: float(each["time"]), default=None)
    if slowest is None:
        return []
    explain = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF)" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"{explain} {slowest['sql']}")
        except Error:
            return [f"{slowest['time']} s", slowest["sql"], "(the captured statement can't be explained as it is)"]
        rows = [" ".join(str(part) for part in row) for row in cursor.fetchall()]
    # A statement may hold thousands of keys.
    return [line[:LONGEST_LINE] for line in (f"{slowest['time']} s", slowest["sql"], *rows)]


def main(words: list[str]) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    chosen = {name: ask for name, ask in questions().items() if not words or any(word in name for word in words)}
    processor, progress = Processor(), Progress("pages", len(chosen))
    found = {}
    for name, ask in chosen.items():
        found[name] = measured(ask, processor)
        progress.advance(note=f"{name}: {found[name]['median_ms']:.0f} ms")
    json.dump(found, sys.stdout)
