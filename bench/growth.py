"""Whether pages stay as fast when the history grows: the same pages with ten thousand images and with a million.

A part of `python -m bench`; alone `python -m bench.growth [--images N] [--database NAME] [WORDS]`, one JSON object on
stdout.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bench.instance import DATABASES, MeasuredInstance, Servers, instance, servers
from ml.progress import Progress, say
from tests.faults.instance import ROOT

SMALL, LARGE = 10_000, 1_000_000
MOST = 1.5
ROUNDS = 7
SECONDS = 3600


def growth(of: Servers, database: str, images: int = LARGE, words: Sequence[str] = ()) -> dict[str, Any]:
    """Of each page whose name holds one of `words`: median and processor ms at both sizes, the ratios, the queries,
    the plan of the slowest query.

    Both instances are asked in turns, and a list shows as many rows in the large one as in the small one: rows that
    are shown cost the same with every history.
    """
    with filled(of, database, SMALL) as small, filled(of, database, images) as large:
        names = [name for name in small.names if name in large.names]
        chosen = [name for name in names if not words or any(word in name for word in words)]
        progress = Progress(f"pages, {database}", len(chosen))
        found = {}
        for name in chosen:
            found[name] = compared(*measured(name, small, large))
            progress.advance(note=f"{name}: {found[name]['processor_ratio']:.2f}")
    grown = sum(figures["processor_ratio"] > MOST for figures in found.values())
    say(f"growth, {database}: {grown} of {len(found)} pages take more than {MOST} times the processor time")
    return found


class AskedPages:
    """The process of `bench.pages` in an instance."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.names: list[str] = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            message = "the process that asks for pages has ended"
            raise RuntimeError(message)
        return json.loads(line)

    def ask(self, do: str, page: str, rows: int | None) -> dict[str, Any]:
        """Let it do one of `begin`, `once` and `explain`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "page": page, "rows": rows}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = self._answer()
        return answer


@contextmanager
def filled(of: Servers, database: str, images: int) -> Iterator[AskedPages]:
    """The pages of an instance that holds so many images."""
    say(f"growth, {database}: {images:,} images ...")
    with instance(of, database) as made:
        subprocess.run(**_inside(made, "bench.many_rows", str(images)), check=True, timeout=SECONDS)
        with subprocess.Popen(**_inside(made, "bench.pages"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                yield AskedPages(process)
            finally:
                process.terminate()


def _inside(made: MeasuredInstance, *module: str) -> dict[str, Any]:
    environment = {**made.environment, "LOG_LEVEL": "ERROR"}
    return {"args": [sys.executable, "-m", "bench.inside", *module], "cwd": ROOT, "env": environment, "text": True}


def measured(page: str, small: AskedPages, large: AskedPages) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a page takes in the two instances, which are asked in turns."""
    begun = small.ask("begin", page, None)
    rows = begun.get("rows")
    beginnings = {small: begun, large: large.ask("begin", page, rows)}
    rounds = [[each.ask("once", page, rows) for each in (small, large)] for _ in range(ROUNDS)]
    answers = []
    for each, turns in zip((small, large), zip(*rounds, strict=True), strict=True):
        # Helpers are counted in steps of 10 ms: only their mean says something.
        helped = statistics.mean(turn["helpers_ms"] for turn in turns)
        answers.append(
            {
                **beginnings[each],
                "median_ms": statistics.median(turn["ms"] for turn in turns),
                "processor_ms": statistics.median(turn["processor_ms"] for turn in turns) + helped,
                **each.ask("explain", page, rows),
            }
        )
    return answers[0], answers[1]


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
    parser.add_argument("words", nargs="*", help="only pages whose names hold one of these")
    chosen = parser.parse_args(arguments)
    if chosen.images <= SMALL:
        parser.error(f"--images must be more than {SMALL}")
    with servers() as started:
        json.dump(
            {each: growth(started, each, chosen.images, chosen.words) for each in chosen.database or DATABASES},
            sys.stdout,
            indent=1,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
