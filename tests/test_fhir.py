"""The FHIR bundle: valid R4 by the published JSON schema and by typed models, and nothing of the report is lost."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from jsonschema import Draft6Validator  # type: ignore[import-untyped]
from pydantic import ValidationError

from classifier.reports.fhir import fhir_bundle
from classifier.reports.standing import Standing
from tests.sample_report import CASE_ID, REPORT_ID, SHA, draft_payload, sample_payload

# HL7's own schema of R4 (4.0), cut to the resources that a bundle of ours holds. The typed models are those of R4B, in
# which these nine resources have the very same elements as in R4; they find some of what the schema lets pass.
SCHEMA = Draft6Validator(json.loads((Path(__file__).parent / "fhir_r4.schema.json").read_text()))
Json = dict[str, Any]


def corrected_payload() -> Json:
    payload = sample_payload()
    replaced = {"id": "11111111-2222-4333-8444-555555555555", "version": 1, "sha256": SHA}
    changes = {"version": 2, "kind": "corrected", "reason": "A wrong cell.", "replaces": replaced}
    payload["report"] = {**payload["report"], **changes}
    return payload


def bare_payload() -> Json:
    """As little as a report can hold: no patient, no times, no WBC, no model, and no cell counted."""
    payload = sample_payload(models=[], codes={})
    payload["case"] = {**payload["case"], "patient_pseudonym": "", "specimen": "", "collected_at": None, "wbc": None}
    payload["report"] = {**payload["report"], "comment": ""}
    cells = payload["differential"]["cells"]
    for cell in cells:
        cell.update(n=0, percent=None, low=None, high=None, flag=None, absolute=None)
    payload["differential"] = {**payload["differential"], "n": 0, "outside": [], "unusable": 0}
    return payload


def amended_payload() -> Json:
    payload = corrected_payload()
    payload["report"]["kind"] = "amended"
    return payload


PAYLOADS = {
    "released": (sample_payload, Standing.CURRENT, "final"),
    "being amended": (sample_payload, Standing.BEING_AMENDED, "final"),
    "superseded": (sample_payload, Standing.SUPERSEDED, "final"),
    "corrected": (corrected_payload, Standing.CURRENT, "corrected"),
    "amended": (amended_payload, Standing.CURRENT, "amended"),
    "void": (corrected_payload, Standing.ENTERED_IN_ERROR, "entered-in-error"),
    "draft": (draft_payload, Standing.DRAFT, "partial"),
    "bare": (bare_payload, Standing.CURRENT, "final"),
}


def faults_of(bundle: Json) -> list[str]:
    """Where the bundle is not R4, by either check."""
    faults = [error.json_path for error in SCHEMA.iter_errors(bundle)]
    try:
        Bundle.model_validate(bundle)
    except ValidationError as error:
        faults += [".".join(map(str, fault["loc"])) for fault in error.errors()]
    return faults


def resources(bundle: Json, kind: str) -> list[Json]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def observation(bundle: Json, label: str) -> Json:
    """The result of a cell type, found by the platform's own code."""
    (found,) = [
        each
        for each in resources(bundle, "Observation")
        if any(coding["code"] == label for coding in each["code"]["coding"])
    ]
    return found


def components(result: Json) -> dict[str, Any]:
    """The parts of a result: code -> its number."""
    values = {}
    for part in result["component"]:
        quantity = part.get("valueQuantity", {}).get("value")
        values[part["code"]["coding"][0]["code"]] = part["valueInteger"] if quantity is None else quantity
    return values


@pytest.fixture
def bundle() -> Json:
    return fhir_bundle(sample_payload(), Standing.CURRENT)


# --- Validity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PAYLOADS))
def test_every_bundle_is_valid_r4(name: str) -> None:
    payload, standing, _ = PAYLOADS[name]
    bundle = json.loads(json.dumps(fhir_bundle(payload(), standing)))
    assert faults_of(bundle) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "signed"),
        ("results", []),
        ("specimen", {"reference": "urn:uuid:1"}),
        ("issued", "yesterday"),
    ],
)
def test_the_checks_find_what_is_not_r4(name: str, value: Any, bundle: Json) -> None:
    resources(bundle, "DiagnosticReport")[0][name] = value
    assert faults_of(bundle) != []


@pytest.mark.parametrize(
    ("kind", "name"),
    [("DiagnosticReport", "status"), ("DiagnosticReport", "code"), ("Observation", "code"), ("Provenance", "agent")],
)
def test_the_checks_find_what_is_missing(kind: str, name: str, bundle: Json) -> None:
    del resources(bundle, kind)[0][name]
    assert faults_of(bundle) != []


@pytest.mark.parametrize("name", list(PAYLOADS))
def test_every_reference_finds_its_resource(name: str) -> None:
    payload, standing, _ = PAYLOADS[name]
    bundle = fhir_bundle(payload(), standing)
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(urls) == len(set(urls))
    kinds = {entry["fullUrl"]: entry["resource"]["resourceType"] for entry in bundle["entry"]}
    found = list(references(bundle))
    assert found
    for reference in found:
        assert kinds[reference["reference"]] == reference["type"]


def references(node: Any) -> Any:
    if isinstance(node, dict):
        if "reference" in node:
            yield node
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.mark.parametrize("name", list(PAYLOADS))
def test_nothing_in_a_bundle_is_empty(name: str) -> None:
    payload, standing, _ = PAYLOADS[name]

    def walk(node: Any) -> None:
        assert node not in ("", [], {}, None)
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            walk(value)

    walk(fhir_bundle(payload(), standing))


def test_same_payload_gives_the_same_bundle_and_leaves_the_payload_alone() -> None:
    payload = sample_payload()
    before = copy.deepcopy(payload)
    assert fhir_bundle(payload, Standing.CURRENT) == fhir_bundle(payload, Standing.CURRENT)
    assert payload == before


# --- Status --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PAYLOADS))
def test_status_follows_kind_and_standing(name: str) -> None:
    payload, standing, status = PAYLOADS[name]
    bundle = fhir_bundle(payload(), standing)
    assert resources(bundle, "DiagnosticReport")[0]["status"] == status
    expected = "preliminary" if status == "partial" else status
    assert {each["status"] for each in resources(bundle, "Observation")} == {expected}


def test_superseded_version_says_so_in_words_and_code() -> None:
    bundle = fhir_bundle(sample_payload(), Standing.SUPERSEDED)
    report = resources(bundle, "DiagnosticReport")[0]
    assert "Do not act on this one" in report["text"]["div"]
    assert report["meta"]["tag"][0]["code"] == bundle["meta"]["tag"][0]["code"] == "superseded"
    for result in resources(bundle, "Observation"):
        assert any("Do not act on this one" in note["text"] for note in result["note"])


def test_draft_has_no_signer_and_bears_the_warning_on_every_result() -> None:
    bundle = fhir_bundle(draft_payload(), Standing.DRAFT)
    assert resources(bundle, "Practitioner") == resources(bundle, "Provenance") == []
    report = resources(bundle, "DiagnosticReport")[0]
    assert "issued" not in report
    assert "AI suggestion - not verified" in report["text"]["div"]
    for result in resources(bundle, "Observation"):
        assert any("AI suggestion - not verified" in note["text"] for note in result["note"])
    assert observation(bundle, "unidentified")["valueInteger"] == 1


# --- Content -------------------------------------------------------------------------------------------------------


def test_each_cell_type_is_a_share_with_limits_counts_range_and_flag(bundle: Json) -> None:
    for cell in sample_payload()["differential"]["cells"]:
        result = observation(bundle, cell["label"])
        parts = components(result)
        assert result["valueQuantity"] == {
            "value": cell["percent"],
            "unit": "%",
            "system": "http://unitsofmeasure.org",
            "code": "%",
        }
        assert (parts["limit-low"], parts["limit-high"]) == (cell["low"], cell["high"])
        assert (parts["n"], parts["of-n"]) == (cell["n"], 200)
        assert (parts["reviewed"], parts["pre-classified"]) == (cell["n"], 0)
        if cell["range_low"] is None:
            assert "referenceRange" not in result
            assert "interpretation" not in result
        else:
            (limits,) = result["referenceRange"]
            assert (limits["low"]["value"], limits["high"]["value"]) == (cell["range_low"], cell["range_high"])
            assert result["interpretation"][0]["coding"][0]["code"] == (cell["flag"] or "N")


def test_flag_without_its_range_still_goes_out() -> None:
    payload = sample_payload()
    payload["differential"]["cells"][0].update(range_low=None, range_high=None, flag="H")
    result = observation(fhir_bundle(payload, Standing.CURRENT), "neutrophil")
    assert result["interpretation"][0]["coding"][0]["code"] == "H"


def test_open_ended_range_has_one_bound() -> None:
    payload = sample_payload()
    payload["differential"]["cells"][0].update(range_low=None)
    (limits,) = observation(fhir_bundle(payload, Standing.CURRENT), "neutrophil")["referenceRange"]
    assert "low" not in limits
    assert limits["text"] == "up to 70 %"


def test_codes_are_those_of_the_payload(bundle: Json) -> None:
    for slug, loinc in sample_payload()["codes"].items():
        coding = observation(bundle, slug)["code"]["coding"][0]
        assert (coding["system"], coding["code"]) == ("http://loinc.org", loinc)
    codings = observation(bundle, "immature_granulocyte")["code"]["coding"]
    assert [coding["system"] for coding in codings] == ["urn:hematovision:cell-type"]


def test_absolute_counts_stand_beside_the_shares(bundle: Json) -> None:
    parts = components(observation(bundle, "lymphocyte"))
    assert (parts["absolute"], parts["absolute-limit-low"], parts["absolute-limit-high"]) == (1.13, 0.78, 1.55)
    units = {
        part["valueQuantity"]["code"]
        for part in observation(bundle, "lymphocyte")["component"]
        if part["code"]["coding"][0]["code"].startswith("absolute")
    }
    assert units == {"10*9/L"}


def test_what_is_outside_the_denominator_is_not_a_share(bundle: Json) -> None:
    erythroblasts = observation(bundle, "erythroblast")
    assert erythroblasts["valueQuantity"]["code"] == "/100{WBCs}"
    assert erythroblasts["valueQuantity"]["value"] == 2.0
    assert components(erythroblasts) == {"n": 4, "of-n": 200}
    assert observation(bundle, "smudge_cell")["valueInteger"] == 7
    assert observation(bundle, "unusable")["valueInteger"] == 2


def test_model_version_is_the_device(bundle: Json) -> None:
    (device,) = resources(bundle, "Device")
    assert device["identifier"][0]["value"] == SHA
    assert device["deviceName"][0]["name"] == "hematovision-mobilenetv2"
    assert device["version"] == [{"value": "1.1.0"}]
    for result in resources(bundle, "Observation"):
        assert result["device"]["reference"] == f"urn:uuid:{device['id']}"


def test_all_models_are_named_where_several_took_part() -> None:
    models = [
        {"name": "one", "version": "1", "sha256": "1" * 64, "cells": 20},
        {"name": "two", "version": "2", "sha256": "2" * 64, "cells": 180},
    ]
    bundle = fhir_bundle(sample_payload(models=models), Standing.CURRENT)
    assert len(resources(bundle, "Device")) == 2
    result = observation(bundle, "neutrophil")
    assert result["device"]["display"] == "two 2"
    assert any("one 1 (20 cells), two 2 (180 cells)" in note["text"] for note in result["note"])
    agents = resources(bundle, "Provenance")[0]["agent"]
    assert [agent["who"]["type"] for agent in agents] == ["Practitioner", "Device", "Device"]


def test_report_is_one_resource_of_the_case_with_versions(bundle: Json) -> None:
    report = resources(bundle, "DiagnosticReport")[0]
    assert report["id"] == REPORT_ID
    assert report["meta"]["versionId"] == "1"
    assert report["identifier"][0]["value"] == CASE_ID
    assert report["identifier"][1]["value"] == f"urn:uuid:{REPORT_ID}"
    assert len(report["result"]) == len(resources(bundle, "Observation")) == 9


def test_new_version_names_what_it_replaces_and_why() -> None:
    (provenance,) = resources(fhir_bundle(corrected_payload(), Standing.CURRENT), "Provenance")
    assert provenance["reason"] == [{"text": "A wrong cell."}]
    (entity,) = provenance["entity"]
    assert entity["role"] == "revision"
    assert entity["what"]["identifier"]["value"] == "urn:uuid:11111111-2222-4333-8444-555555555555"


def test_patient_is_a_pseudonym_and_nothing_else(bundle: Json) -> None:
    (patient,) = resources(bundle, "Patient")
    assert set(patient) == {"resourceType", "id", "identifier"}
    assert patient["identifier"][0]["value"] == "P-77"
    bare = fhir_bundle(bare_payload(), Standing.CURRENT)
    assert resources(bare, "Patient") == []
    assert all("subject" not in result for result in resources(bare, "Observation"))


def test_text_of_people_is_escaped_in_the_narrative() -> None:
    payload = sample_payload(statement="<b>AI</b> & co")
    div = resources(fhir_bundle(payload, Standing.CURRENT), "DiagnosticReport")[0]["text"]["div"]
    assert "&lt;b&gt;AI&lt;/b&gt; &amp; co" in div
