"""What `make bench` rests on: different pictures, real processes, figures that mean what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.contrib import admin
from django.core.cache import cache

from bench import pages, report, through_http
from bench.drain import drain
from bench.growth import compared
from bench.instance import seconds_of, servers
from bench.pictures import NoPictures, real_pictures
from bench.soak import growth_of
from classifier import exports, kept_totals
from classifier.kept_totals import images_by_laboratory, predictions_by_version
from classifier.paging import NewestFirst
from tests.faults.instance import pictures

KEYS = {
    *("raw_images_per_second", "drain_images_per_second", "workers", "http_images_per_second", "http_p95_ms"),
    *("baseline_images_per_second", "single_post_ms", "single_stored_ms", "web_rss_mb", "worker_rss_mb"),
}
HTTP = {
    **{"n": 3, "accepted_per_second": 90.5, "classified_per_second": 80.25, "median_ms": 20.0, "p95_ms": 41.5},
    **{"web_rss_mb": 120.0, "worker_rss_mb": 230.0, "processor_ms": {"web": 6.5, "worker": 7.0}},
    "single": {"n": 2, "post_ms": 18.0, "stored_after_post_ms": 26.0, "seen_ms": 50.0},
}
DRAIN = {"n": 3, "workers": 2, "images_per_second": 150.0, "processor_ms": {"worker": 9.0}, "worker_rss_mb": 230.0}
FOUND: dict[str, Any] = {
    "raw": {
        "n": 3,
        "cores": 2,
        "images_per_second": 300.0,
        "predict_only_images_per_second": 520.0,
        "ms": {"all": 6.5},
    },
    "drain": {"sqlite": {"one_a_core": DRAIN}},
    "http": {"sqlite": HTTP},
    "baseline": {"n": 3, "clients": 8, "images_per_second": 8.025, "median_ms": 900.0},
}


def file_of(place: Path, name: str, content: bytes) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
    return place / name


def test_no_picture_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pictures(2)
    for name, content in (("a.jpg", first), ("copy of a.jpg", first), ("b.jpg", second)):
        file_of(tmp_path / "pbc" / "monocyte", name, content)
    monkeypatch.setenv("HEMATOVISION_DATA", str(tmp_path))
    assert {path.read_bytes() for path in real_pictures(2)} == {first, second}
    with pytest.raises(NoPictures, match="3 different pictures are needed and 2 were found"):
        real_pictures(3)


def test_the_last_line_has_the_figures_that_scripts_compare() -> None:
    line = report.last_line(FOUND)
    assert set(line) == KEYS
    assert line["http_images_per_second"] == 80.25
    assert line["single_stored_ms"] == 26.0
    assert line["workers"] == 2


def test_a_part_that_is_measured_again_leaves_the_others_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, results = tmp_path / "performance.md", tmp_path / "results.json"
    page.write_text(f"# Speed\n\n{report.BEGIN}\n{report.END}\n\nWords.\n")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "RESULTS", results)
    report.write_report(FOUND)
    report.write_report({"drain": {"sqlite": {"one_a_core": {**DRAIN, "images_per_second": 210.0}}}})
    known = json.loads(results.read_text())
    assert known["raw"]["images_per_second"] == 300.0
    assert known["drain"]["sqlite"]["one_a_core"]["images_per_second"] == 210.0
    text = page.read_text()
    assert text.startswith("# Speed\n")
    assert text.endswith("\n\nWords.\n")
    assert "| sqlite | 2 | 3 | 210 | 0.70 | 9.00 | 230 |" in text
    assert "| sqlite | 3 | 90.5 | 80.2 | 10.0 | 20.0 | 41.5 | 120 | 230 |" in text


def test_growth_is_told_from_caches_that_fill_at_first() -> None:
    assert growth_of([1, 5, 9, 9, 9, 9, 12, 12]) == {"first": 1, "second_quarter": 9, "last_quarter": 12, "most": 12}


def measured(processor_ms: float, **more: float) -> dict[str, Any]:
    return {"median_ms": 20.0, "processor_ms": processor_ms, "queries": 7, "plan": [], **more}


def test_growth_is_shown_by_processor_time_the_worst_pages_first() -> None:
    found = {f"page {number}": compared(measured(10.0), measured(10.0 + number / 10)) for number in range(60)}
    found["slow desk"] = compared(measured(10.0), measured(90.0, first_ms=4321.0))

    lines = list(report.growth_table({"growth": {"measured": {}, "sqlite": found}}))

    assert lines[0].startswith("sqlite: 10 of 61 pages take more than 1.5 times the processor time")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert rows == ["sqlite", "slow desk", *(f"page {number}" for number in range(59, 20, -1)), "sqlite", "slow desk"]
    assert "| slow desk | 10.0 | 90.0 | 9.00 | 20.0 | 20.0 | 1.00 | 7 |" in lines
    assert "| slow desk | 4,321 | 20.0 |" in lines


@pytest.mark.django_db
def test_first_call_is_told_of_pages_that_ask_for_kept_totals() -> None:
    cache.clear()
    asked = []

    def ask() -> None:
        asked.append(cache.get_many(kept_totals.KEPT))
        images_by_laboratory()
        predictions_by_version()

    first = pages.first_ms(ask)
    assert first is not None
    assert first > 0
    assert asked == [{}, {}]
    assert set(cache.get_many(kept_totals.KEPT)) == set(kept_totals.KEPT)
    assert pages.first_ms(lambda: None) is None


def test_list_of_the_bench_shows_no_more_rows_than_the_smaller_one_did() -> None:
    desk = [page.list_per_page for page in admin.site._registry.values()]
    with pages.at_most(3):
        assert {page.list_per_page for page in admin.site._registry.values()} == {3}
        assert (NewestFirst.page_size, exports.CHUNK) == (3, 3)
    assert [page.list_per_page for page in admin.site._registry.values()] == desk
    assert exports.CHUNK > 3
    assert pages.rows_in(b'{"results": [1, 2]}') == 2
    assert pages.rows_in(b'<div id="changelist"><tr><th class="field-at"></th></tr></div>') == 1
    assert pages.rows_in(["row"]) == 1
    assert pages.rows_in(b"<html>") is pages.rows_in(None) is None


def test_processor_time_of_a_child_that_has_ended_stays_counted() -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass"
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}]); print('done', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        first = psutil.Process(process.pid)
        assert seconds_of([first, *first.children(recursive=True)]) >= 0.3
        process.communicate("\n")
    # What is gone by the time that it is asked is no error.
    assert seconds_of([first, psutil.Process(os.getpid())]) > 0


@pytest.mark.faults
def test_real_processes_are_measured_and_every_picture_is_classified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [file_of(tmp_path, f"{number}.jpg", content) for number, content in enumerate(pictures(20))]
    for name, few in (("WARM_UP", 2), ("SINGLES", 2), ("PAUSE_SECONDS", 0.0)):
        monkeypatch.setattr(through_http, name, few)
    with servers() as started:
        http = through_http.through_http(files, started, "sqlite", workers=1)
        drained = drain(files[:12], started, "postgresql", workers=1)
    assert (http["n"], http["single"]["n"], drained["n"]) == (16, 2, 12)
    assert http["processor_ms"]["web"] > 0
    assert http["processor_ms"]["worker"] > 0
    assert {"worker", "beat", "broker", "postgresql", "clients"} == set(drained["processor_ms"])
    assert http["p95_ms"] >= http["median_ms"] > 0
