"""Whether pages stay as fast when the history grows: the same pages with ten thousand images and with a million.

A part of `python -m bench`; alone `python -m bench.growth [--images N] [--database NAME]`, one JSON object on stdout.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from tempfile import NamedTemporaryFile
from types import MappingProxyType
from typing import Any

from bench.instance import DATABASES, MeasuredInstance, Servers, instance, servers
from ml.progress import say
from tests.faults.instance import ROOT

SMALL, LARGE = 10_000, 1_000_000
MOST = 1.5
SECONDS = 3600


def growth(of: Servers, database: str, images: int = LARGE) -> dict[str, Any]:
    """Of each page: median and processor ms at both sizes, the ratios, the queries, the plan of the slowest query."""
    small = pages_with(of, database, SMALL)
    large = pages_with(of, database, images, like=small)
    found = {page: compared(small[page], large[page]) for page in large if page in small}
    grown = sum(figures["processor_ratio"] > MOST for figures in found.values())
    say(f"growth, {database}: {grown} of {len(found)} pages take more than {MOST} times the processor time")
    return found


def pages_with(
    of: Servers, database: str, images: int, like: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """What `bench.pages` measures in an instance that holds so many images; lists show no more rows than in `like`."""
    say(f"growth, {database}: {images:,} images ...")
    with instance(of, database) as made:
        told(made, "bench.many_rows", str(images))
        with NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(dict(like), file)
            file.flush()
            pages: dict[str, Any] = json.loads(told(made, "bench.pages", "--like", file.name))
    return pages


def told(made: MeasuredInstance, *module: str) -> str:
    """What a module of ours says on stdout, run in the instance; its progress is shown meanwhile."""
    environment = {**made.environment, "LOG_LEVEL": "ERROR"}
    command = [sys.executable, "-m", "bench.inside", *module]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS
    )
    return done.stdout


def compared(small: Mapping[str, Any], large: Mapping[str, Any]) -> dict[str, Any]:
    # Below a millisecond a ratio says nothing.
    ratio = large["processor_ms"] / max(1.0, small["processor_ms"])
    return {
        "small_ms": small["median_ms"],
        "large_ms": large["median_ms"],
        "ratio": large["median_ms"] / small["median_ms"],
        "small_processor_ms": small["processor_ms"],
        "large_processor_ms": large["processor_ms"],
        "processor_ratio": ratio,
        **({"first_ms": large["first_ms"]} if "first_ms" in large else {}),
        "queries": large["queries"],
        **({"plan": large["plan"]} if ratio > MOST else {}),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--images", type=int, default=LARGE, help=f"the larger history; the small one has {SMALL:,}")
    parser.add_argument("--database", choices=DATABASES, action="append", help="one database; default: both")
    chosen = parser.parse_args(arguments)
    if chosen.images <= SMALL:
        parser.error(f"--images must be more than {SMALL}")
    with servers() as started:
        json.dump(
            {each: growth(started, each, chosen.images) for each in chosen.database or DATABASES}, sys.stdout, indent=1
        )


if __name__ == "__main__":
    main(sys.argv[1:])
