"""The content of a report: read once from the case, frozen at the signature, and the only source of every rendering.

Schema 1 is described in docs/reports.md. What was signed is never rewritten: a later schema is read beside it. The
patient pseudonym is no part of it: it is joined when the report is shown, so that it can be erased.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from accounts.models import User
from classifier.laboratory_settings import settings_of
from classifier.models import Case, CellImage, Prediction, Report, Verdict
from classifier.reports.words import LIMITS, draft_statement, statement
from classifier.tallies import differential_of, tally_of

SCHEMA = 1
Json = dict[str, Any]


@dataclass(frozen=True)
class Signature:
    """Who signs what, when and why: everything of a payload that a draft does not have."""

    report_id: UUID
    version: int
    kind: str
    reason: str
    comment: str
    signer: User
    signed_at: datetime
    replaces: Report | None


def canonical_json(payload: Mapping[str, Any]) -> str:
    """The payload as the one text that it is stored as: keys sorted, no spaces, characters as they are."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def payload_sha256(payload_json: str) -> str:
    """The SHA-256 of the text's UTF-8 bytes, in hexadecimal."""
    return sha256(payload_json.encode()).hexdigest()


def build_payload(case: Case, *, signature: Signature | None = None) -> Json:
    """The payload of the case as it stands: signed, or a draft. Takes a fixed number of queries, of any size."""
    settings = settings_of(case.laboratory_id)
    images = images_of(case)
    models = models_of(images)
    differential = differential_of(case, tally_of(case), settings).as_json()
    if signature:
        time = time_words(signature.signed_at, settings.time_zone)
        said = statement(signer=str(signature.signer), time=time, models=models)
    else:
        said = draft_statement(differential)
    return {
        "schema": SCHEMA,
        "report": signed_part(signature, settings.time_zone) if signature else None,
        "laboratory": {
            "id": str(case.laboratory_id),
            "name": case.laboratory.name,
            "settings_version": settings.version,
        },
        "case": case_part(case),
        "differential": differential,
        "codes": {rule["slug"]: rule["loinc"] for rule in settings.cell_types if rule["loinc"]},
        "review": review_part(case, images),
        "models": models,
        "images": [image_part(image) for image in images],
        "statement": said,
        "limits": list(LIMITS),
    }


def with_pseudonym(payload: Mapping[str, Any], pseudonym: str) -> Json:
    """The payload as it is shown: with the pseudonym that the case has now, empty where there is none any more."""
    return {**payload, "case": {**payload["case"], "patient_pseudonym": pseudonym}}


def draft_payload(case: Case) -> Json:
    """The case as it would be signed now, as it is shown."""
    return with_pseudonym(build_payload(case), case.patient_pseudonym)


def shown_payload(report: Report) -> Json:
    """The signed content as it is shown. `report.case` should be there already."""
    return with_pseudonym(report.payload, report.case.patient_pseudonym)


def signed_part(signature: Signature, time_zone: str) -> Json:
    replaced = signature.replaces
    return {
        "id": str(signature.report_id),
        "version": signature.version,
        "kind": signature.kind,
        "reason": signature.reason,
        "comment": signature.comment,
        "signed_at": moment(signature.signed_at),
        "signed_at_local": time_words(signature.signed_at, time_zone),
        "time_zone": time_zone,
        "signer": {
            "id": str(signature.signer.pk),
            "name": str(signature.signer),
            "role": signature.signer.get_role_display(),
        },
        "replaces": replaced and {"id": str(replaced.pk), "version": replaced.version, "sha256": replaced.sha256},
    }


def case_part(case: Case) -> Json:
    return {
        "id": str(case.pk),
        "accession_number": case.accession_number,
        "specimen": case.specimen,
        "collected_at": moment(case.collected_at),
        "opened_at": moment(case.opened_at),
        "wbc": None if case.wbc_value is None else {"value": float(case.wbc_value), "source": case.wbc_source},
    }


# The name in the payload, and where it stands; `review__` is the review that counts, `model__` its prediction's model.
IMAGE_COLUMNS = {
    "id": "pk",
    "stored_sha256": "stored_sha256",
    "status": "status",
    "verdict": "current_review__verdict",
    "final_label": "current_review__final_label",
    "failure_code": "current_review__failure_code",
    "reviewed_at": "current_review__created_at",
    "reader_id": "current_review__reader",
    "reader_name": "current_review__reader__full_name",
    "reader_email": "current_review__reader__email",
}
PREDICTION_COLUMNS = {
    "suggestion": "suggestion",
    "abstained": "abstained",
    "confidence": "confidence",
    "model_name": "model_version__name",
    "model_version": "model_version__version",
    "model_sha256": "model_version__sha256",
}


def images_of(case: Case) -> list[Json]:
    """The images that are not void, in the order of their arrival, each with what was said about it.

    A reviewed image bears the prediction that its review was about; one that nobody reviewed, the newest.
    """
    rows = CellImage.objects.filter(case=case, void=None).order_by("uploaded_at", "pk")
    prediction = {name: f"current_review__prediction__{path}" for name, path in PREDICTION_COLUMNS.items()}
    names = IMAGE_COLUMNS | prediction
    images = [dict(zip(names, values, strict=True)) for values in rows.values_list(*names.values())]
    newest = predictions_of_unreviewed(case)
    return [{**image, **newest.get(image["id"], {})} for image in images]


def predictions_of_unreviewed(case: Case) -> dict[UUID, Json]:
    rows = Prediction.objects.filter(
        image__case=case, image__void=None, image__current_review=None, image__status="classified"
    ).order_by("created_at", "pk")
    return {
        image: dict(zip(PREDICTION_COLUMNS, values, strict=True))
        for image, *values in rows.values_list("image", *PREDICTION_COLUMNS.values())
    }


def image_part(image: Json) -> Json:
    name = f"{image['model_name']} {image['model_version']}" if image["model_name"] else None
    reader = {"id": str(image["reader_id"]), "name": image["reader_name"] or image["reader_email"]}
    return {
        "id": str(image["id"]),
        "stored_sha256": image["stored_sha256"],
        "verdict": image["verdict"],
        "final_label": image["final_label"] or None,
        "suggestion": image["suggestion"] or None,
        "abstained": image["abstained"],
        "confidence": image["confidence"],
        "model": name,
        "reader": reader if image["reader_id"] else None,
        "reviewed_at": moment(image["reviewed_at"]),
    }


def models_of(images: list[Json]) -> list[Json]:
    """The model versions behind the images, the one with the most first."""
    counts: dict[tuple[str, str, str], int] = {}
    for image in images:
        if image["model_name"]:
            key = (image["model_name"], image["model_version"], image["model_sha256"])
            counts[key] = counts.get(key, 0) + 1
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [
        {"name": name, "version": version, "sha256": model_sha256, "cells": count}
        for (name, version, model_sha256), count in ranked
    ]


def review_part(case: Case, images: list[Json]) -> Json:
    """How many images were confirmed, corrected, read by hand or set aside."""
    verdicts = [image["verdict"] for image in images]
    counted = (Verdict.CONFIRMED, Verdict.CORRECTED, Verdict.MANUAL, Verdict.UNUSABLE)
    return {
        **{verdict.lower(): verdicts.count(verdict.value) for verdict in counted},
        "void": CellImage.objects.filter(case=case, void__isnull=False).count(),
    }


def moment(time: datetime | None) -> str | None:
    """A time as it is stored: UTC ISO 8601."""
    return None if time is None else time.astimezone(UTC).isoformat()


def time_words(time: datetime, time_zone: str) -> str:
    """The time in the laboratory's zone, for people: `23 Nov 2026, 10:12 CET`."""
    local = time.astimezone(ZoneInfo(time_zone))
    return f"{local.day} {local:%b %Y, %H:%M %Z}"
