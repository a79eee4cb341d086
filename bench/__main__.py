"""How fast the platform is on this machine, with real processes and real pictures.

`python -m bench` measures everything but the soak, `--quick` the same without growth and memory and with fewer
pictures, on SQLite; `--only PART` one part. Progress on stderr; the last line on stdout is JSON.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from bench.baseline import baseline
from bench.drain import drain
from bench.growth import growth
from bench.instance import DATABASES, Servers, servers
from bench.memory import memory
from bench.pictures import NoPictures, real_pictures
from bench.raw import raw
from bench.report import last_line, write_report
from bench.soak import soak
from bench.through_http import SINGLES, WARM_UP, through_http
from ml.progress import say

FULL = {"raw": 2000, "drain": 2000, "http": 1000, "baseline": 200, "memory": 10_000, "soak": 5000}
QUICK = {"raw": 800, "drain": 800, "http": 600, "baseline": 60}
PARTS = ("raw", "drain", "http", "baseline", "growth", "memory", "soak")
QUICK_PARTS = ("raw", "drain", "http", "baseline")


def measure(
    parts: tuple[str, ...], counts: dict[str, int], databases: tuple[str, ...], started: Servers, minutes: float
) -> dict[str, Any]:
    """The figures of each part: of raw and baseline one, of the others one for each database."""
    cores = len(os.sched_getaffinity(0))
    wanted = {part: counts[part] for part in parts if part in counts}
    if "http" in wanted:
        wanted["http"] += WARM_UP + SINGLES
    pictures = real_pictures(max(wanted.values(), default=0))
    say(f"{len(pictures)} different real pictures, {cores} cores")

    def drained(database: str) -> dict[str, Any]:
        queued = pictures[: counts["drain"]]
        return {
            "one": drain(queued, started, database, workers=1),
            "one_a_core": drain(queued, started, database, workers=cores),
        }

    once: dict[str, Callable[[], Any]] = {
        "raw": lambda: raw(pictures[: counts["raw"]], cores),
        "baseline": lambda: baseline(pictures[: counts["baseline"]]),
    }
    each: dict[str, Callable[[str], Any]] = {
        "drain": drained,
        "http": lambda database: through_http(pictures[: wanted["http"]], started, database, workers=cores),
        "growth": lambda database: growth(started, database),
        "memory": lambda database: memory(pictures[: counts["memory"]], started, database),
        "soak": lambda database: soak(pictures[: counts["soak"]], started, database, minutes=minutes),
    }
    return {
        part: once[part]() if part in once else {database: each[part](database) for database in databases}
        for part in parts
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, SQLite only; under three minutes")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; can be given several times")
    parser.add_argument("--database", choices=DATABASES, action="append", help="one database; default: both")
    parser.add_argument("--minutes", type=float, default=20, help="how long the soak goes on")
    chosen = parser.parse_args(arguments)
    parts = tuple(chosen.only or (QUICK_PARTS if chosen.quick else [part for part in PARTS if part != "soak"]))
    databases = tuple(chosen.database or (["sqlite"] if chosen.quick else DATABASES))
    try:
        with servers() as started:
            found = measure(parts, FULL | QUICK if chosen.quick else FULL, databases, started, chosen.minutes)
    except NoPictures as missing:
        say(str(missing))
        return 2
    if not chosen.quick:
        write_report(found)
    print(json.dumps(last_line(found) if set(parts) >= set(QUICK_PARTS) else found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
