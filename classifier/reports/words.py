"""The words and figures of a report as people read them, the same on the page, in the PDF and in the FHIR narrative."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from classifier.reports.standing import Standing
from ml.labels import display_name

NOT_VERIFIED = "AI suggestion - not verified. For trained reviewers; not for diagnosis."
SAMPLING_ONLY = (
    "The limits of a share are exact binomial (Clopper-Pearson) 95 % limits. They cover sampling only, never "
    "misclassification."
)
LIMITS = (
    "This platform is not a medical device and is not cleared by any regulator.",
    "The model knows only the classes on its model card.",
    "It does not recognise blasts, reactive lymphocytes, plasma cells or parasites, which may be called by a familiar "
    "name.",
    "A normal result does not exclude disease.",
    "Accuracy on other stains and microscopes is unknown and usually lower, so validate locally first.",
    SAMPLING_ONLY,
)
BASES = {
    "reviewed": "every cell counted was reviewed by a person",
    "pre_classified": "no cell was reviewed by a person",
    "mixed": "some cells were not reviewed by a person",
}
FLAGS = {"H": "above the range", "L": "below the range"}
KINDS = {"released": "Released", "amended": "Amended", "corrected": "Corrected"}
VERDICTS = {
    "CONFIRMED": "Confirmed",
    "CORRECTED": "Reclassified",
    "MANUAL": "Read by hand",
    "UNUSABLE": "Unusable",
}
# The whole sentence that stands on top of a report that is not, or not simply, the one in force.
STANDINGS = {
    Standing.DRAFT: "Draft: nothing is signed, so this is not a report yet.",
    Standing.CURRENT: "",
    Standing.BEING_AMENDED: "This report is being amended: a new version is on its way. Until it is signed, this one "
    "stays in force.",
    Standing.SUPERSEDED: "Superseded: a newer version of this report was signed. Do not act on this one.",
    Standing.ENTERED_IN_ERROR: "Entered in error: this case was voided, so nothing in this report may be used.",
}


def figure(number: float) -> str:
    """One decimal, as every share and limit is written: 9.96 -> `10.0`."""
    return f"{number:.1f}"


def count_figure(number: float) -> str:
    """Two decimals, as absolute counts (10^9/L) are written."""
    return f"{number:.2f}"


def limits_words(low: float | None, high: float | None) -> str:
    """`52.9 - 66.8`; empty where there are none."""
    return "" if low is None or high is None else f"{figure(low)} - {figure(high)}"


def range_words(low: float | None, high: float | None) -> str:
    """A reference range in percent: `50 - 70`, `up to 2`, `from 50`; empty where the laboratory has none."""
    if low is None and high is None:
        return ""
    if low is None:
        return f"up to {high:g}"
    return f"from {low:g}" if high is None else f"{low:g} - {high:g}"


def flag_words(cell: Mapping[str, Any]) -> str:
    """`H`, `L`, or empty within the range and without one."""
    return str(cell["flag"] or "")


def kind_words(payload: Mapping[str, Any]) -> str:
    """`Released`, `Amended`, `Corrected`; `Draft` where nothing is signed."""
    report = payload["report"]
    return KINDS[report["kind"]] if report else "Draft"


def ribbon_words(payload: Mapping[str, Any], standing: Standing) -> str:
    """What the report is at a glance: kind, version and standing."""
    report = payload["report"]
    if not report:
        return "Draft - not signed"
    return f"{KINDS[report['kind']]}, version {report['version']}, {standing.label.lower()}"


def statement(*, signer: str, time: str, models: Sequence[Mapping[str, Any]]) -> str:
    """The sentence of a signed report. Without any model, every cell was read by hand."""
    if not models:
        return f"Read by hand, verified by {signer}, {time}. No model took part."
    named = ", ".join(f"{model['name']} {model['version']}" for model in models)
    return f"AI-assisted, verified by {signer}, {time}. Model {named}."


def draft_statement(differential: Mapping[str, Any]) -> str:
    """What stands in the place of the signature while there is none."""
    unread = {"queued", "failed", "unidentified", "unreviewed"} & {each["code"] for each in differential["blocked_by"]}
    if unread or differential["basis"] != "reviewed":
        return NOT_VERIFIED
    return "Every cell was reviewed by a person; nobody has signed."


def review_words(review: Mapping[str, int]) -> str:
    """What people did with the model's suggestions, in one line."""
    parts = [
        (review["confirmed"], "confirmed"),
        (review["corrected"], "reclassified"),
        (review["manual"], "read by hand"),
        (review["unusable"], "unusable"),
        (review["void"], "void"),
    ]
    return ", ".join(f"{count} {word}" for count, word in parts if count) or "nothing reviewed yet"


def name_of(slug: str) -> str:
    """The name of a cell type, also of one that a later vocabulary no longer has."""
    try:
        return display_name(slug)
    except ValueError:
        return slug.replace("_", " ").capitalize()


def signed_utc(report: Mapping[str, Any]) -> str:
    """The time of the signature in UTC, where the laboratory's own time is another; else empty."""
    return "" if report["time_zone"] == "UTC" else moment_words(report["signed_at"])


def moment_words(text: str | None) -> str:
    """A stored UTC time for people: `2026-11-23T09:12:00+00:00` -> `23 Nov 2026, 09:12 UTC`; empty for none."""
    if not text:
        return ""
    moment = datetime.fromisoformat(text)
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"
