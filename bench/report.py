"""What was measured, as a file for machines and tables for people."""

import json
import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.growth import LARGE, MOST, SMALL
from hematovision.settings import BASE_DIR

RESULTS = BASE_DIR / "bench" / "results.json"
PAGE = BASE_DIR / "docs" / "performance.md"
BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of the figures -->"
PAGES_SHOWN = 40
Cells = Sequence[object]


def rounded(value: Any) -> Any:
    """The value with every fraction in it at three digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value


def last_line(found: dict[str, Any]) -> dict[str, Any]:
    """The figures that a script compares, of the embedded default."""
    http, drained = found["http"]["sqlite"], found["drain"]["sqlite"]["one_a_core"]
    line: dict[str, Any] = rounded(
        {
            "raw_images_per_second": found["raw"]["images_per_second"],
            "drain_images_per_second": drained["images_per_second"],
            "workers": drained["workers"],
            "http_images_per_second": http["classified_per_second"],
            "http_p95_ms": http["p95_ms"],
            "baseline_images_per_second": found["baseline"]["images_per_second"],
            "single_post_ms": http["single"]["post_ms"],
            "single_stored_ms": http["single"]["stored_after_post_ms"],
            "web_rss_mb": http["web_rss_mb"],
            "worker_rss_mb": http["worker_rss_mb"],
        }
    )
    return line


def write_report(found: dict[str, Any]) -> None:
    """Put the parts that were measured in the place of what the file and the page said of them."""
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    stamp = {"at": datetime.now(UTC).isoformat(timespec="minutes"), "machine": machine()}
    known.update({part: {"measured": stamp, **rounded(figures)} for part, figures in found.items()})
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text("\n".join([before + BEGIN, "", *page_of(known), END]) + after)


def machine() -> str:
    names = [line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores, {names[0] if names else platform.processor()}"


def cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


# --- Tables --------------------------------------------------------------------------------------------------------
def page_of(known: dict[str, Any]) -> Iterator[str]:
    tables = {
        "raw": raw_table,
        "drain": drain_table,
        "http": http_table,
        "baseline": baseline_table,
        "growth": growth_table,
        "memory": memory_table,
        "soak": soak_table,
    }
    for part, table in tables.items():
        if part in known:
            stamp = known[part]["measured"]
            yield from (f"### {TITLES[part]}", "", f"{stamp['machine']}; {stamp['at']}.", "")
            yield from table(known)
            yield ""


TITLES = {
    "raw": "Raw: what the cores can do at all",
    "drain": "Drain: a full queue, nothing but workers",
    "http": "Through HTTP: eight clients, until every picture is classified",
    "baseline": "Baseline: a Flask page with `model.predict` in the request",
    "growth": "Growth: ten thousand and a million images",
    "memory": "Memory: ten thousand pictures, 200 uploads at a time",
    "soak": "Soak: mixed load",
}


def table(head: Cells, rows: Sequence[Cells]) -> Iterator[str]:
    yield f"| {' | '.join(map(str, head))} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(shown(cell) for cell in row)} |"


def shown(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def of_databases(part: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, figures) for name, figures in part.items() if name != "measured"]


def raw_table(known: dict[str, Any]) -> Iterator[str]:
    raw = known["raw"]
    yield f"{raw['n']:,} pictures, {raw['cores']} loops side by side, one thread each: "
    yield f"**{raw['images_per_second']:.0f} images a second**; the network alone "
    yield f"{raw['predict_only_images_per_second']:.0f}. Milliseconds of one core a picture:"
    yield ""
    yield from table(list(raw["ms"]), [list(raw["ms"].values())])


def drain_table(known: dict[str, Any]) -> Iterator[str]:
    raw = known.get("raw", {}).get("images_per_second")
    rows = [
        (
            name,
            each["workers"],
            each["n"],
            each["images_per_second"],
            each["images_per_second"] / raw if raw else "",
            each["processor_ms"]["worker"],
            each["worker_rss_mb"],
        )
        for name, figures in of_databases(known["drain"])
        for each in figures.values()
    ]
    head = ("database", "workers", "n", "images/s", "of raw", "worker's processor ms a picture", "worker MiB")
    yield from table(head, rows)


def http_table(known: dict[str, Any]) -> Iterator[str]:
    baseline = known.get("baseline", {}).get("images_per_second")
    rows = [
        (
            name,
            each["n"],
            each["accepted_per_second"],
            each["classified_per_second"],
            each["classified_per_second"] / baseline if baseline else "",
            each["median_ms"],
            each["p95_ms"],
            each["web_rss_mb"],
            each["worker_rss_mb"],
        )
        for name, each in of_databases(known["http"])
    ]
    head = ("database", "n", "accepted/s", "classified/s", "times the baseline", "median ms", "p95 ms")
    yield from table((*head, "web MiB", "worker MiB"), rows)
    yield ""
    yield "Milliseconds of processor time a picture, of each part:"
    yield ""
    parts = list(dict.fromkeys(part for _, each in of_databases(known["http"]) for part in each["processor_ms"]))
    used = [
        (name, *(each["processor_ms"].get(part, "") for part in parts)) for name, each in of_databases(known["http"])
    ]
    yield from table(("database", *parts), used)
    yield ""
    yield "One upload at a time on an idle system, medians in ms:"
    yield ""
    singles = [(name, *each["single"].values()) for name, each in of_databases(known["http"])]
    yield from table(("database", "n", "POST answered", "stored after that", "seen by a polling client"), singles)
    yield ""
    yield "Classified and stored: the time in the prediction's row, taken just before the row is written. Seen:"
    yield "when a client that asks again and again gets the prediction."


def baseline_table(known: dict[str, Any]) -> Iterator[str]:
    each = known["baseline"]
    yield "On Flask's own server (`app.run(threaded=True)`), one process."
    yield ""
    head = ("n", "clients", "images/s", "median ms")
    yield from table(head, [(each["n"], each["clients"], each["images_per_second"], each["median_ms"])])


GROWTH = {
    "small_processor_ms": f"{SMALL:,}: processor ms",
    "large_processor_ms": f"{LARGE:,}: processor ms",
    "processor_ratio": "ratio",
    "small_ms": f"{SMALL:,}: ms",
    "large_ms": f"{LARGE:,}: ms",
    "ratio": "ratio",
    "queries": "queries",
}


def growth_table(known: dict[str, Any]) -> Iterator[str]:
    for name, pages in of_databases(known["growth"]):
        worst = sorted(pages.items(), key=lambda page: page[1]["processor_ratio"], reverse=True)
        grown = sum(each["processor_ratio"] > MOST for _, each in worst)
        yield f"{name}: {grown} of {len(worst)} pages take more than {MOST} times the processor time. The worst:"
        yield ""
        rows = [(page, *(each[column] for column in GROWTH)) for page, each in worst[:PAGES_SHOWN]]
        yield from table((name, *GROWTH.values()), rows)
        yield ""
        if cold := [(page, each["first_ms"], each["large_ms"]) for page, each in pages.items() if "first_ms" in each]:
            yield "The first call, where totals are asked for that nobody has counted yet:"
            yield ""
            yield from table((name, f"{LARGE:,}: ms of the first", "ms of the others"), cold)
            yield ""


def memory_table(known: dict[str, Any]) -> Iterator[str]:
    rows = [
        (
            name,
            each["n"],
            each["longest_queue"],
            each["told_to_come_again"],
            *(each[f"{part}_rss_mb"][at] for part in ("web", "worker") for at in ("before", "most", "after")),
        )
        for name, each in of_databases(known["memory"])
    ]
    head = ("database", "n", "longest queue", "answers 429", "web MiB before", "most", "after", "worker before")
    yield from table((*head, "most", "after"), rows)


def soak_table(known: dict[str, Any]) -> Iterator[str]:
    for name, each in of_databases(known["soak"]):
        done = ", ".join(f"{count:,} {what}" for what, count in each["done"].items())
        yield f"{name}, {each['minutes']:g} minutes: {done}; {len(each['errors'])} errors."
        yield ""
        rows = [(what, *figures.values()) for what, figures in each["figures"].items()]
        yield from table(("", "at first", "second quarter", "last quarter", "most"), rows)
        yield ""
