"""How long pages and lists take in this instance: a process that is asked page by page (`bench.inside bench.pages`).

People of every role ask, in this process, so that nothing but the page is measured. A line on stdin is a question, a
line on stdout its answer, both JSON; the first line tells the names of the pages, which stand in `bench.asked`. So two
instances can be asked in turns, and whatever else keeps the machine busy slows them both.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from django.conf import settings
from django.contrib import admin
from django.core.cache import cache
from django.db import Error, connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Laboratory
from bench.asked import questions
from classifier import desk_days, exports, kept_totals
from classifier.paging import NewestFirst
from classifier.views import batches, worklist

LONGEST_LINE = 500
# What begins a row, by what a page with such rows holds.
ROWS = {
    b'id="changelist"': b'<th class="field-',
    b"<h1>Worklist</h1>": b'<th scope="row">',
    b"<h1>Batches</h1>": b'<th scope="row">',
}


class Processor:
    """Seconds of processor time of this process and of the PostgreSQL process that works for it.

    `children_seconds` is what its helpers used, counted with their parent once they have ended, in steps of 10 ms.
    """

    def __init__(self) -> None:
        self.backend = self.postmaster = None
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                self.backend = psutil.Process(cursor.fetchone()[0])
            self.postmaster = self.backend.parent()

    def seconds(self) -> float:
        used = time.process_time()
        if self.backend:
            schedule = Path(f"/proc/{self.backend.pid}/schedstat")
            times = self.backend.cpu_times()
            # Linux tells nanoseconds here, and steps of 10 ms there.
            used += int(schedule.read_text().split()[0]) / 1e9 if schedule.exists() else times.user + times.system
        return used

    def children_seconds(self) -> float:
        if not self.postmaster:
            return 0.0
        times = self.postmaster.cpu_times()
        return times.children_user + times.children_system


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


def rows_in(answer: object) -> int | None:
    """How many rows a list of the desk, of cases or batches, of the API or of an export shows; None for others."""
    if isinstance(answer, bytes) and answer.startswith(b"{"):
        results = json.loads(answer).get("results")
        return len(results) if isinstance(results, list) else None
    if isinstance(answer, bytes):
        marks = (row for table, row in ROWS.items() if table in answer)
        return next((answer.count(row) for row in marks), None)
    return len(answer) if isinstance(answer, list) else None


@contextmanager
def at_most(rows: int | None) -> Iterator[None]:
    """Lists show no more rows than these."""
    if rows is None:
        yield
        return
    sizes: list[tuple[object, str]] = [(page, "list_per_page") for page in admin.site._registry.values()]
    sizes += [(worklist, "CASES_ON_PAGE"), (batches, "BATCHES_ON_PAGE"), (exports, "CHUNK")]
    sizes += [(NewestFirst, "page_size"), (NewestFirst, "max_page_size")]
    with ExitStack() as changed:
        for place, name in sizes:
            changed.enter_context(patch.object(place, name, min(getattr(place, name), max(1, rows))))
        yield


class Pages:
    """The pages of this instance, to be asked one after the other."""

    def __init__(self) -> None:
        settings.ALLOWED_HOSTS = ["*"]
        self.asks = questions()
        self.processor = Processor()

    def begin(self, page: str, rows: int | None) -> dict[str, Any]:
        """Ask until everything is loaded: `rows` that the page shows, `first_ms` where totals were counted."""
        ask = self.asks[page]
        with at_most(rows):
            first = first_ms(ask)
            shown = rows_in(ask())
        return {**({} if first is None else {"first_ms": first}), **({} if shown is None else {"rows": shown})}

    def once(self, page: str, rows: int | None) -> dict[str, float]:
        """Ask once more: `ms`, `processor_ms`, and `helpers_ms` of PostgreSQL's helpers, counted in steps of 10."""
        processor = self.processor
        with at_most(rows):
            helpers, before = processor.children_seconds(), processor.seconds()
            ms = elapsed_ms(self.asks[page])
            used = processor.seconds() - before
        return {
            "ms": ms,
            "processor_ms": 1000 * used,
            "helpers_ms": 1000 * (processor.children_seconds() - helpers),
        }

    def explain(self, page: str, rows: int | None) -> dict[str, Any]:
        """The number of its queries, and how the database runs the slowest."""
        with at_most(rows), CaptureQueriesContext(connection) as queries:
            self.asks[page]()
        return {"queries": len(queries), "plan": plan(queries.captured_queries)}


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


def main(_arguments: list[str]) -> None:
    pages = Pages()
    answer: object = list(pages.asks)
    while True:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return
        question = json.loads(line)
        answer = getattr(pages, question["do"])(question["page"], question["rows"])
