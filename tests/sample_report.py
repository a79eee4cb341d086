"""A payload as a release freezes it, for the tests of what is drawn from it: nothing here needs a database."""

from typing import Any

REPORT_ID = "5a0d7f9e-3c55-4c1e-9d0a-0a8f6f3c7b11"
CASE_ID = "0f6f0c1e-58a7-4f7e-b8e2-7a3fd7f3f3aa"
LABORATORY_ID = "9c1f4a52-5d6c-4a5f-8f0b-2f2b8ab3d9c4"
SHA = "a3f1" * 16


def cell(
    label: str,
    n: int,
    limits: tuple[float, float],
    interval: tuple[float | None, float | None] = (None, None),
    flag: str | None = None,
    *,
    of: int = 200,
    absolute: dict[str, float] | None = None,
) -> dict[str, Any]:
    return {
        "label": label,
        "n": n,
        "percent": 100 * n / of,
        "low": limits[0],
        "high": limits[1],
        "range_low": interval[0],
        "range_high": interval[1],
        "flag": flag,
        "reviewed": n,
        "pre_classified": 0,
        "absolute": absolute,
    }


def image(number: int, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "stored_sha256": f"{number:064x}",
        "verdict": "CONFIRMED",
        "final_label": "neutrophil",
        "suggestion": "neutrophil",
        "confidence": 0.97,
        "model": "hematovision-mobilenetv2 1.1.0",
        "reader": {"id": "77777777-7777-4777-8777-777777777777", "name": "Tess Tanner"},
        "reviewed_at": "2026-11-23T08:55:01+00:00",
    }
    return {**usual, **changes}


def sample_payload(**changes: Any) -> dict[str, Any]:
    """A released report of 200 leukocytes: eosinophils high, lymphocytes low. `changes` replace whole parts."""
    payload: dict[str, Any] = {
        "schema": 1,
        "report": {
            "id": REPORT_ID,
            "version": 1,
            "kind": "released",
            "reason": "",
            "comment": "Eosinophilia; no blasts seen by the reader.",
            "signed_at": "2026-11-23T09:12:00+00:00",
            "signed_at_local": "23 Nov 2026, 10:12 CET",
            "time_zone": "Europe/Berlin",
            "signer": {"id": "88888888-8888-4888-8888-888888888888", "name": "Ruth Reyes", "role": "Reader"},
            "replaces": None,
        },
        "laboratory": {"id": LABORATORY_ID, "name": "Northside", "settings_version": 3},
        "case": {
            "id": CASE_ID,
            "accession_number": "A-1001",
            "patient_pseudonym": "P-77",
            "specimen": "EDTA blood",
            "collected_at": "2026-11-23T07:30:00+00:00",
            "opened_at": "2026-11-23T08:00:00+00:00",
            "wbc": {"value": 7.5, "source": "Analyser 4"},
        },
        "differential": {
            "n": 200,
            "basis": "reviewed",
            "cells": [
                cell("neutrophil", 120, (52.9, 66.8), (50, 70), absolute={"value": 4.5, "low": 3.97, "high": 5.01}),
                cell(
                    "lymphocyte", 30, (10.4, 20.7), (20, 40), "L", absolute={"value": 1.13, "low": 0.78, "high": 1.55}
                ),
                cell("monocyte", 16, (4.6, 12.7), (2, 8), absolute={"value": 0.6, "low": 0.35, "high": 0.95}),
                cell("eosinophil", 31, (10.8, 21.3), (1, 4), "H", absolute={"value": 1.16, "low": 0.81, "high": 1.6}),
                cell("basophil", 0, (0.0, 1.8), (0, 2), absolute={"value": 0.0, "low": 0.0, "high": 0.14}),
                cell("immature_granulocyte", 3, (0.3, 4.3), absolute={"value": 0.11, "low": 0.02, "high": 0.32}),
            ],
            "outside": [
                {"label": "erythroblast", "n": 4, "per_100_wbc": 2.0},
                {"label": "smudge_cell", "n": 7, "per_100_wbc": None},
            ],
            "blocked_by": [],
            "unidentified": 0,
            "unusable": 2,
            "target_count": 200,
            "settings_version": 3,
            "wbc": 7.5,
        },
        "codes": {
            "neutrophil": "26511-6",
            "lymphocyte": "26478-8",
            "monocyte": "26485-3",
            "eosinophil": "26450-7",
            "basophil": "30180-4",
            "erythroblast": "19048-8",
        },
        "review": {"confirmed": 190, "corrected": 19, "manual": 2, "unusable": 2, "void": 1},
        "models": [{"name": "hematovision-mobilenetv2", "version": "1.1.0", "sha256": SHA, "cells": 209}],
        "images": [
            image(1),
            image(2, verdict="CORRECTED", final_label="eosinophil", suggestion="neutrophil", confidence=0.61),
            image(3, verdict="MANUAL", suggestion=None, confidence=None, model=None),
            image(4, verdict="UNUSABLE", final_label=""),
        ],
        "statement": "AI-assisted, verified by Ruth Reyes, 23 Nov 2026, 10:12 CET. "
        "Model hematovision-mobilenetv2 1.1.0.",
        "limits": [
            "This platform is not a medical device and is not cleared by any regulator.",
            "A normal result does not exclude disease.",
        ],
    }
    return {**payload, **changes}


def draft_payload() -> dict[str, Any]:
    """The same case before anybody signed: some cells are the model's word only, and one is unidentified."""
    released = sample_payload()
    differential = {**released["differential"], "basis": "mixed", "unidentified": 1}
    cells = [
        {**cell, "reviewed": cell["n"] // 2, "pre_classified": -(-cell["n"] // 2)} for cell in differential["cells"]
    ]
    differential["cells"] = cells
    differential["blocked_by"] = [{"code": "unidentified", "count": 1, "message": "1 cell is unidentified."}]
    statement = "AI suggestion - not verified. For trained reviewers; not for diagnosis."
    return {**released, "report": None, "differential": differential, "statement": statement}
