"""A report as two CSV files: the differential, and the cells that were counted. UTF-8 with a mark that Excel needs."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from classifier.reports.standing import Standing

DIFFERENTIAL_COLUMNS = (
    "report_id",
    "version",
    "kind",
    "standing",
    "accession_number",
    "group",
    "label",
    "loinc",
    "n",
    "of_n",
    "percent",
    "low",
    "high",
    "range_low",
    "range_high",
    "flag",
    "absolute",
    "absolute_low",
    "absolute_high",
    "per_100_wbc",
)
CELL_COLUMNS = (
    "report_id",
    "version",
    "standing",
    "image_id",
    "stored_sha256",
    "verdict",
    "final_label",
    "suggestion",
    "confidence",
    "model",
    "reader",
    "reviewed_at",
)
# A spreadsheet would take a text that begins like this for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def differential_csv(payload: Mapping[str, Any], standing: Standing) -> bytes:
    """A row a cell type: first those of the denominator, then those outside it. Percent 0-100, absolute in 10^9/L."""
    differential = payload["differential"]
    shared = {**report_columns(payload, standing), "accession_number": payload["case"]["accession_number"]}
    rows = [
        {
            **shared,
            "group": "leukocytes",
            "loinc": payload["codes"].get(cell["label"], ""),
            "of_n": differential["n"],
            **{
                name: cell[name] for name in ("label", "n", "percent", "low", "high", "range_low", "range_high", "flag")
            },
            **absolute_columns(cell.get("absolute")),
        }
        for cell in differential["cells"]
    ]
    rows += [
        {**shared, "group": "outside", "loinc": payload["codes"].get(outside["label"], ""), **outside}
        for outside in differential["outside"]
    ]
    return written(DIFFERENTIAL_COLUMNS, rows)


def cells_csv(payload: Mapping[str, Any], standing: Standing) -> bytes:
    """A row an image that the report rests on. `confidence` is a fraction."""
    shared = report_columns(payload, standing)
    rows = [
        {
            **shared,
            **image,
            "image_id": image["id"],
            "reader": image["reader"]["name"] if image["reader"] else None,
        }
        for image in payload["images"]
    ]
    return written(CELL_COLUMNS, rows)


def report_columns(payload: Mapping[str, Any], standing: Standing) -> dict[str, Any]:
    report = payload["report"] or {}
    return {
        "report_id": report.get("id"),
        "version": report.get("version"),
        "kind": report.get("kind", "draft"),
        "standing": standing.value,
    }


def absolute_columns(absolute: Mapping[str, float] | None) -> dict[str, float]:
    if not absolute:
        return {}
    return {"absolute": absolute["value"], "absolute_low": absolute["low"], "absolute_high": absolute["high"]}


def written(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([harmless(row.get(column)) for column in columns])
    return text.getvalue().encode("utf-8-sig")


def harmless(value: Any) -> Any:
    """The value as a spreadsheet may show it: nothing for None, and no text that it would take for a formula."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return "" if value is None else value
