"""The files that a report leaves the system as. Names bear the report's id only, never patient text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from classifier.models import Report
from classifier.reports.csv_files import cells_csv, differential_csv
from classifier.reports.fhir import fhir_bundle
from classifier.reports.payload import canonical_json, shown_payload
from classifier.reports.pdf import report_pdf
from classifier.reports.standing import Standing


@dataclass(frozen=True)
class ExportedFile:
    """A file to hand out; `name` holds no patient text."""

    name: str
    content_type: str
    content: bytes


def exported(report: Report, standing: Standing, kind: str) -> ExportedFile:
    """The report as a file of `kind`: pdf, fhir, json, csv (the differential) or cells (the images behind it)."""
    content_type, ending, draw = KINDS[kind]
    return ExportedFile(f"report-{report.pk}-v{report.version}{ending}", content_type, draw(report, standing))


def signed_json(report: Report, standing: Standing) -> bytes:
    """The signed text, byte for byte, and beside it its hash, what it is worth now, and the pseudonym."""
    frame = canonical_json({"sha256": report.sha256, "standing": standing.value})
    joined = canonical_json({"patient_pseudonym": report.case.patient_pseudonym})
    return f'{{"payload":{report.payload_json},{frame[1:-1]},{joined[1:]}'.encode()


def fhir_json(payload: Mapping[str, Any], standing: Standing) -> bytes:
    return canonical_json(fhir_bundle(payload, standing)).encode()


def of_payload(draw: Callable[..., bytes], report: Report, standing: Standing) -> bytes:
    return draw(shown_payload(report), standing)


def pdf(report: Report, standing: Standing) -> bytes:
    return report_pdf(shown_payload(report), standing, sha256=report.sha256)


KINDS: dict[str, tuple[str, str, Callable[[Report, Standing], bytes]]] = {
    "pdf": ("application/pdf", ".pdf", pdf),
    "fhir": ("application/fhir+json", ".fhir.json", partial(of_payload, fhir_json)),
    "json": ("application/json", ".json", signed_json),
    "csv": ("text/csv; charset=utf-8", ".csv", partial(of_payload, differential_csv)),
    "cells": ("text/csv; charset=utf-8", "-cells.csv", partial(of_payload, cells_csv)),
}
