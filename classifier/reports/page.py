"""What the report's page shows, worked out from the payload alone, so that the template holds no figures of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classifier.differential_chart import ShareChart, chart_of
from classifier.reports.changes import Change, changed_labels, changes_between
from classifier.reports.standing import Standing
from classifier.reports.words import (
    BASES,
    FLAGS,
    STANDINGS,
    count_figure,
    figure,
    limits_words,
    moment_words,
    name_of,
    range_words,
    review_words,
    ribbon_words,
    signed_utc,
)

Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A cell type as it is written; empty texts where there is nothing to say. `changed` since the version before."""

    slug: str
    name: str
    n: str
    percent: str
    limits: str
    range: str
    flag: str
    flag_words: str
    absolute: str
    changed: bool


@dataclass(frozen=True)
class OutsideRow:
    slug: str
    name: str
    n: str
    note: str
    changed: bool


@dataclass(frozen=True)
class ReportPage:
    """Everything of one report, in words and figures."""

    ribbon: str
    standing: Standing
    standing_sentence: str
    is_draft: bool
    facts: list[tuple[str, str]]
    counted: str
    rows: list[Row]
    outside: list[OutsideRow]
    chart: ShareChart | None
    has_absolute: bool
    reviewed: str
    signed_utc: str
    changes: list[Change]


def page_of(payload: Payload, standing: Standing, *, before: Payload | None = None) -> ReportPage:
    """The page of a payload; `before` is the payload of the version before, if there is one."""
    differential = payload["differential"]
    changed = changed_labels(before, payload) if before else frozenset()
    rows = [row_of(cell, changed) for cell in differential["cells"]]
    counted = f"{differential['n']:,} leukocytes counted (target {differential['target_count']:,}); "
    return ReportPage(
        ribbon=ribbon_words(payload, standing),
        standing=standing,
        standing_sentence=STANDINGS[standing],
        is_draft=payload["report"] is None,
        facts=facts_of(payload),
        counted=counted + BASES[differential["basis"]] + ".",
        rows=rows,
        outside=outside_of(differential, changed),
        chart=chart_of(differential["cells"]) if rows and differential["n"] else None,
        has_absolute=any(row.absolute for row in rows),
        reviewed=review_words(payload["review"]),
        signed_utc=signed_utc(payload["report"]) if payload["report"] else "",
        changes=changes_between(before, payload) if before else [],
    )


def facts_of(payload: Payload) -> list[tuple[str, str]]:
    case = payload["case"]
    wbc = case["wbc"]
    facts = [
        ("Accession number", case["accession_number"]),
        ("Patient pseudonym", case["patient_pseudonym"]),
        ("Specimen", case["specimen"]),
        ("Collected", moment_words(case["collected_at"])),
        ("Case opened", moment_words(case["opened_at"])),
        ("WBC", f"{wbc['value']:g} × 10⁹/L ({wbc['source']})" if wbc else ""),
    ]
    return [(name, value) for name, value in facts if value]


def row_of(cell: Mapping[str, Any], changed: frozenset[str]) -> Row:
    absolute = cell.get("absolute")
    limits = absolute and f"{count_figure(absolute['low'])} - {count_figure(absolute['high'])}"
    return Row(
        slug=cell["label"],
        name=name_of(cell["label"]),
        n=f"{cell['n']:,}",
        percent="" if cell["percent"] is None else figure(cell["percent"]),
        limits=limits_words(cell["low"], cell["high"]),
        range=range_words(cell["range_low"], cell["range_high"]),
        flag=cell["flag"] or "",
        flag_words=FLAGS.get(cell["flag"], ""),
        absolute=f"{count_figure(absolute['value'])} ({limits})" if absolute else "",
        changed=cell["label"] in changed,
    )


def outside_of(differential: Mapping[str, Any], changed: frozenset[str]) -> list[OutsideRow]:
    rows = [
        OutsideRow(
            slug=row["label"],
            name=name_of(row["label"]),
            n=f"{row['n']:,}",
            note="" if row["per_100_wbc"] is None else f"{figure(row['per_100_wbc'])} per 100 WBC",
            changed=row["label"] in changed,
        )
        for row in differential["outside"]
    ]
    rows += [
        OutsideRow(name, f"{name.capitalize()} images", f"{differential[name]:,}", "in no share", changed=False)
        for name in ("unidentified", "unusable")
        if differential.get(name)
    ]
    return rows
