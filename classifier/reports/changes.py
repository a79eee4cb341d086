"""What a version says otherwise than the one before it, in words and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classifier.reports.words import figure, limits_words, name_of, range_words, review_words

Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One thing that differs: what it is, how it was and how it is now; `none` where there was or is nothing."""

    what: str
    before: str
    now: str


def changes_between(before: Payload, now: Payload) -> list[Change]:
    """Every difference that a reader can see, in the order of the page."""
    pairs = [
        *case_pairs(before, now),
        ("Leukocytes counted", f"{before['differential']['n']:,}", f"{now['differential']['n']:,}"),
        *cell_pairs(before, now),
        *outside_pairs(before, now),
        ("Comment", comment_of(before), comment_of(now)),
        ("Images", review_words(before["review"]), review_words(now["review"])),
        ("Models", models_words(before), models_words(now)),
    ]
    return [Change(what, then or "none", today or "none") for what, then, today in pairs if then != today]


def changed_labels(before: Payload, now: Payload) -> frozenset[str]:
    """The cell types whose row is not what it was."""
    rows = [
        {row["label"]: row for part in ("cells", "outside") for row in payload["differential"][part]}
        for payload in (before, now)
    ]
    return frozenset(label for label in rows[0] | rows[1] if rows[0].get(label) != rows[1].get(label))


def case_pairs(before: Payload, now: Payload) -> list[tuple[str, str, str]]:
    names = {
        "accession_number": "Accession number",
        "patient_pseudonym": "Patient pseudonym",
        "specimen": "Specimen",
        "collected_at": "Collected",
    }
    pairs = [(words, before["case"][name] or "", now["case"][name] or "") for name, words in names.items()]
    return [*pairs, ("WBC", wbc_words(before), wbc_words(now))]


def cell_pairs(before: Payload, now: Payload) -> list[tuple[str, str, str]]:
    rows = [{cell["label"]: cell for cell in payload["differential"]["cells"]} for payload in (before, now)]
    labels = list(dict.fromkeys([*rows[1], *rows[0]]))
    return [(name_of(label), cell_words(rows[0].get(label)), cell_words(rows[1].get(label))) for label in labels]


def outside_pairs(before: Payload, now: Payload) -> list[tuple[str, str, str]]:
    rows = [{row["label"]: row for row in payload["differential"]["outside"]} for payload in (before, now)]
    labels = list(dict.fromkeys([*rows[1], *rows[0]]))
    return [(name_of(label), outside_words(rows[0].get(label)), outside_words(rows[1].get(label))) for label in labels]


def cell_words(cell: Mapping[str, Any] | None) -> str:
    """`120, 60.0 % (52.9 - 66.8), range 50 - 70, H`."""
    if cell is None:
        return ""
    parts = [f"{cell['n']:,}"]
    if cell["percent"] is not None:
        parts.append(f"{figure(cell['percent'])} % ({limits_words(cell['low'], cell['high'])})")
    if limits := range_words(cell["range_low"], cell["range_high"]):
        parts.append(f"range {limits}")
    if cell["flag"]:
        parts.append(cell["flag"])
    return ", ".join(parts)


def outside_words(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    per_100 = row["per_100_wbc"]
    return f"{row['n']:,}" + ("" if per_100 is None else f", {figure(per_100)} per 100 WBC")


def wbc_words(payload: Payload) -> str:
    wbc = payload["case"]["wbc"]
    return f"{wbc['value']:g} x 10^9/L ({wbc['source']})" if wbc else ""


def comment_of(payload: Payload) -> str:
    return payload["report"]["comment"] if payload["report"] else ""


def models_words(payload: Payload) -> str:
    return ", ".join(f"{model['name']} {model['version']}" for model in payload["models"])
