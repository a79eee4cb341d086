"""A report as an HL7 FHIR R4 Bundle of type collection, built as plain dictionaries from the payload alone.

Every resource refers to the others by `urn:uuid:` addresses that are the same for the same payload. Patients are named
by pseudonym only. Codes that no public system has are in the platform's own systems under `urn:hematovision:`.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from uuid import UUID, uuid5

from classifier.differential import PER_100_WBC
from classifier.reports.standing import Standing
from classifier.reports.words import (
    BASES,
    SAMPLING_ONLY,
    STANDINGS,
    limits_words,
    name_of,
    range_words,
    ribbon_words,
)

Json = dict[str, Any]

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
OWN = "urn:hematovision"
# Differential panel, method unspecified - Blood: neither "manual" nor "automated" would be true.
PANEL = "69738-3"
INTERPRETATIONS = {"H": "High", "L": "Low", "N": "Normal"}
REPORT_STATUS = {"released": "final", "amended": "amended", "corrected": "corrected"}
ACTIVITIES = {"released": "CREATE", "amended": "UPDATE", "corrected": "UPDATE"}


def fhir_bundle(payload: Mapping[str, Any], standing: Standing) -> Json:
    """The bundle: the report, a result a cell type, and everybody and everything that they refer to."""
    return BundleBuilder(payload, standing).bundle()


def report_status(payload: Mapping[str, Any], standing: Standing) -> str:
    """The status of the DiagnosticReport: `partial` as long as nobody signed."""
    if standing == Standing.ENTERED_IN_ERROR:
        return "entered-in-error"
    return REPORT_STATUS[payload["report"]["kind"]] if payload["report"] else "partial"


def observation_status(payload: Mapping[str, Any], standing: Standing) -> str:
    status = report_status(payload, standing)
    return "preliminary" if status == "partial" else status


class BundleBuilder:
    """Draws one payload. `root` is the id of the report, or of the case while it is a draft."""

    def __init__(self, payload: Mapping[str, Any], standing: Standing) -> None:
        self.payload = payload
        self.standing = standing
        self.report: Mapping[str, Any] | None = payload["report"]
        self.case: Mapping[str, Any] = payload["case"]
        self.differential: Mapping[str, Any] = payload["differential"]
        self.root = UUID(self.report["id"] if self.report else self.case["id"])
        self.report_id = str(self.root if self.report else uuid5(self.root, "draft"))

    def id_of(self, part: str) -> str:
        return str(uuid5(self.root, part))

    def reference(self, kind: str, identity: str, display: str = "") -> Json:
        return {"reference": f"urn:uuid:{identity}", "type": kind, **({"display": display} if display else {})}

    # --- The whole -------------------------------------------------------------------------------------------------

    def bundle(self) -> Json:
        observations = self.observations()
        resources = [
            self.diagnostic_report(observations),
            *observations,
            self.specimen(),
            *([self.patient()] if self.case["patient_pseudonym"] else []),
            self.organization(),
            *([self.practitioner(), self.provenance()] if self.report else []),
            *self.devices(),
        ]
        bundle: Json = {
            "resourceType": "Bundle",
            "id": self.id_of("bundle"),
            "meta": {"tag": [self.own_code("standing", self.standing.value, self.standing.label)]},
            "identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{self.id_of('bundle')}"},
            "type": "collection",
            "entry": [{"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource} for resource in resources],
        }
        if self.report:
            bundle["timestamp"] = self.report["signed_at"]
        return bundle

    def diagnostic_report(self, observations: Sequence[Json]) -> Json:
        resource: Json = {
            "resourceType": "DiagnosticReport",
            "id": self.report_id,
            "meta": {"tag": [self.own_code("standing", self.standing.value, self.standing.label)]},
            "text": self.narrative(),
            "identifier": [
                {"use": "official", "system": f"{OWN}:report-of-case", "value": self.case["id"]},
                {"use": "secondary", "system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{self.report_id}"},
            ],
            "status": report_status(self.payload, self.standing),
            "category": [{"coding": [{"system": f"{TERMINOLOGY}/v2-0074", "code": "HM", "display": "Hematology"}]}],
            "code": {
                "coding": [
                    {"system": LOINC, "code": PANEL, "display": "Differential panel, method unspecified - Blood"}
                ],
                "text": "White-cell differential",
            },
            **self.about(),
            "specimen": [self.reference("Specimen", self.id_of("specimen"))],
            "performer": [self.reference("Organization", self.id_of("laboratory"), self.payload["laboratory"]["name"])],
            "result": [self.reference("Observation", each["id"], each["code"]["text"]) for each in observations],
        }
        if self.report:
            resource["meta"]["versionId"] = str(self.report["version"])
            resource["issued"] = self.report["signed_at"]
            resource["resultsInterpreter"] = [
                self.reference("Practitioner", self.id_of("signer"), self.report["signer"]["name"])
            ]
            if self.report["comment"]:
                resource["conclusion"] = self.report["comment"]
        return without_empty(resource)

    def about(self) -> Json:
        """Whom and what a result is about, and when the specimen was taken."""
        about: Json = {"specimen": self.reference("Specimen", self.id_of("specimen"))}
        if self.case["patient_pseudonym"]:
            about["subject"] = self.reference("Patient", self.id_of("patient"))
        if self.case["collected_at"]:
            about["effectiveDateTime"] = self.case["collected_at"]
        return about

    # --- Results ---------------------------------------------------------------------------------------------------

    def observations(self) -> list[Json]:
        found = [self.share(cell) for cell in self.differential["cells"]]
        found += [self.outside(each) for each in self.differential["outside"]]
        found += [
            self.tally(name, self.differential[name])
            for name in ("unidentified", "unusable")
            if self.differential.get(name)
        ]
        return found

    def observation(self, label: str) -> Json:
        """What all results have in common. The device is the model that suggested most of the cells."""
        resource: Json = {
            "resourceType": "Observation",
            "id": self.id_of(f"observation/{label}"),
            "status": observation_status(self.payload, self.standing),
            "category": [{"coding": [{"system": f"{TERMINOLOGY}/observation-category", "code": "laboratory"}]}],
            "code": self.cell_type(label),
            **self.about(),
            "performer": [self.reference("Organization", self.id_of("laboratory"))],
            "method": {"text": self.method()},
            "note": [{"text": note} for note in self.notes()],
        }
        if self.report:
            resource["issued"] = self.report["signed_at"]
        if models := self.payload["models"]:
            main = max(models, key=lambda model: int(model["cells"]))
            resource["device"] = self.reference("Device", self.device_id(main), f"{main['name']} {main['version']}")
        return resource

    def cell_type(self, label: str, *, with_loinc: bool = True) -> Json:
        coding = [self.own_code("cell-type", label, name_of(label))]
        if with_loinc and (loinc := self.payload["codes"].get(label)):
            coding.insert(0, {"system": LOINC, "code": loinc})
        return {"coding": coding, "text": name_of(label)}

    def method(self) -> str:
        how = "Pre-classified by a model on images of stained cells; " if self.payload["models"] else "Read on images; "
        return how + BASES[self.differential["basis"]]

    def notes(self) -> list[str]:
        notes = [STANDINGS[self.standing], self.payload["statement"], SAMPLING_ONLY]
        models = self.payload["models"]
        if len(models) > 1:
            named = ", ".join(f"{model['name']} {model['version']} ({model['cells']} cells)" for model in models)
            notes.append(f"Models that suggested the cells of this report: {named}.")
        return [note for note in notes if note]

    def share(self, cell: Mapping[str, Any]) -> Json:
        """A leukocyte type: its share in percent, its limits, its counts and, with a WBC, its absolute count."""
        resource = self.observation(cell["label"])
        components = [
            component("n", "Cells of this type", {"valueInteger": cell["n"]}),
            component("of-n", "Leukocytes counted", {"valueInteger": self.differential["n"]}),
        ]
        if cell["percent"] is None:
            resource["dataAbsentReason"] = coded(f"{TERMINOLOGY}/data-absent-reason", "not-performed", "Not Performed")
        else:
            resource["valueQuantity"] = percent(cell["percent"])
        for name, words in (("low", "Lower 95 % limit of the share"), ("high", "Upper 95 % limit of the share")):
            if cell[name] is not None:
                components.append(component(f"limit-{name}", words, {"valueQuantity": percent(cell[name])}))
        for name, words in (("reviewed", "Cells reviewed by a person"), ("pre_classified", "Cells by the model alone")):
            if name in cell:
                components.append(component(name.replace("_", "-"), words, {"valueInteger": cell[name]}))
        if absolute := cell.get("absolute"):
            for name, words in (
                ("value", "Absolute count"),
                ("low", "Lower 95 % limit of the absolute count"),
                ("high", "Upper 95 % limit of the absolute count"),
            ):
                code = "absolute" if name == "value" else f"absolute-limit-{name}"
                components.append(component(code, words, {"valueQuantity": per_litre(absolute[name])}))
        resource["component"] = components
        low, high = cell["range_low"], cell["range_high"]
        if low is not None or high is not None:
            limits = {"low": low, "high": high}
            bounds = {name: percent(bound) for name, bound in limits.items() if bound is not None}
            resource["referenceRange"] = [{**bounds, "text": f"{range_words(low, high)} %"}]
        # A flag goes out even if its range were missing; "normal" needs a range and a share.
        if flag := cell["flag"] or ("N" if "referenceRange" in resource and cell["percent"] is not None else None):
            system = f"{TERMINOLOGY}/v3-ObservationInterpretation"
            resource["interpretation"] = [coded(system, flag, INTERPRETATIONS[flag])]
        return without_empty(resource)

    def outside(self, outside: Mapping[str, Any]) -> Json:
        """A type outside the denominator: per 100 leukocytes where that is asked for, else how many were seen."""
        resource = self.observation(outside["label"])
        if outside["per_100_wbc"] is None:
            if outside["label"] == PER_100_WBC:
                # The laboratory's code is that of a rate, and without leukocytes there is none.
                resource["code"] = self.cell_type(outside["label"], with_loinc=False)
            return without_empty({**resource, "valueInteger": outside["n"]})
        resource["valueQuantity"] = {
            "value": outside["per_100_wbc"],
            "unit": "per 100 WBC",
            "system": UCUM,
            "code": "/100{WBCs}",
        }
        resource["component"] = [
            component("n", "Cells of this type", {"valueInteger": outside["n"]}),
            component("of-n", "Leukocytes counted", {"valueInteger": self.differential["n"]}),
        ]
        return without_empty(resource)

    def tally(self, name: str, count: int) -> Json:
        """Images that are in no class: what was left out must be seen as well."""
        resource = self.observation(name)
        resource["code"] = {
            "coding": [self.own_code("image-tally", name, name.capitalize())],
            "text": f"{name.capitalize()} images, in no share",
        }
        return without_empty({**resource, "valueInteger": count})

    # --- Who and what ----------------------------------------------------------------------------------------------

    def specimen(self) -> Json:
        resource: Json = {
            "resourceType": "Specimen",
            "id": self.id_of("specimen"),
            "accessionIdentifier": {"system": self.own_system("accession-number"), "value": self.accession_number},
            "status": "entered-in-error" if self.standing == Standing.ENTERED_IN_ERROR else "available",
        }
        if self.case["specimen"]:
            resource["type"] = {"text": self.case["specimen"]}
        if self.case["patient_pseudonym"]:
            resource["subject"] = self.reference("Patient", self.id_of("patient"))
        if self.case["collected_at"]:
            resource["collection"] = {"collectedDateTime": self.case["collected_at"]}
        return resource

    @property
    def accession_number(self) -> str:
        return str(self.case["accession_number"])

    def patient(self) -> Json:
        identifier = {"system": self.own_system("patient-pseudonym"), "value": self.case["patient_pseudonym"]}
        return {"resourceType": "Patient", "id": self.id_of("patient"), "identifier": [identifier]}

    def organization(self) -> Json:
        laboratory = self.payload["laboratory"]
        return {
            "resourceType": "Organization",
            "id": self.id_of("laboratory"),
            "identifier": [{"system": f"{OWN}:laboratory", "value": laboratory["id"]}],
            "name": laboratory["name"],
        }

    def practitioner(self) -> Json:
        signer = self.signed["signer"]
        return {
            "resourceType": "Practitioner",
            "id": self.id_of("signer"),
            "identifier": [{"system": f"{OWN}:user", "value": signer["id"]}],
            "name": [{"text": signer["name"]}],
        }

    def devices(self) -> list[Json]:
        """Each model version, with the hash of the file that was used and the limits of what it can do."""
        return [
            {
                "resourceType": "Device",
                "id": self.device_id(model),
                "identifier": [{"system": f"{OWN}:model-sha256", "value": model["sha256"]}],
                "status": "active",
                "deviceName": [{"name": model["name"], "type": "model-name"}],
                "type": {"text": "Machine-learning model that pre-classifies blood-cell images"},
                "version": [{"value": model["version"]}],
                "owner": self.reference("Organization", self.id_of("laboratory")),
                "note": [{"text": limit} for limit in self.payload["limits"]],
            }
            for model in self.payload["models"]
        ]

    def device_id(self, model: Mapping[str, Any]) -> str:
        return self.id_of(f"device/{model['sha256']}")

    def provenance(self) -> Json:
        """Who signed and when, what the version replaces, and why it was made."""
        report = self.signed
        agents: list[Json] = [
            {
                "type": coded(f"{TERMINOLOGY}/provenance-participant-type", "verifier", "Verifier"),
                "who": self.reference("Practitioner", self.id_of("signer"), report["signer"]["name"]),
                "onBehalfOf": self.reference("Organization", self.id_of("laboratory")),
            }
        ]
        agents += [
            {
                "type": coded(f"{TERMINOLOGY}/provenance-participant-type", "assembler", "Assembler"),
                "who": self.reference("Device", self.device_id(model), f"{model['name']} {model['version']}"),
            }
            for model in self.payload["models"]
        ]
        resource: Json = {
            "resourceType": "Provenance",
            "id": self.id_of("provenance"),
            "target": [self.reference("DiagnosticReport", self.report_id)],
            "occurredDateTime": report["signed_at"],
            "recorded": report["signed_at"],
            "activity": {
                "coding": [{"system": f"{TERMINOLOGY}/v3-DataOperation", "code": ACTIVITIES[report["kind"]]}],
                "text": report["kind"],
            },
            "agent": agents,
        }
        if report["reason"]:
            resource["reason"] = [{"text": report["reason"]}]
        if replaced := report["replaces"]:
            identifier = {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{replaced['id']}"}
            what = {"identifier": identifier, "type": "DiagnosticReport", "display": f"Version {replaced['version']}"}
            resource["entity"] = [{"role": "revision", "what": what}]
        return resource

    @property
    def signed(self) -> Mapping[str, Any]:
        if self.report is None:
            message = "A draft has no signer."
            raise ValueError(message)
        return self.report

    # --- Narrative -------------------------------------------------------------------------------------------------

    def narrative(self) -> Json:
        """The result as text, for a reader whose system shows nothing else."""
        rows = "".join(
            f"<tr><td>{escape(name_of(cell['label']))}</td><td>{cell['n']}</td>"
            f"<td>{'' if cell['percent'] is None else format(cell['percent'], '.1f')}</td>"
            f"<td>{limits_words(cell['low'], cell['high'])}</td>"
            f"<td>{range_words(cell['range_low'], cell['range_high'])}</td><td>{escape(cell['flag'] or '')}</td></tr>"
            for cell in self.differential["cells"]
        )
        sentences = [ribbon_words(self.payload, self.standing), *self.notes()]
        words = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
        heads = "".join(
            f"<th>{head}</th>" for head in ("Cell type", "n", "Percent", "95 % limits", "Reference range", "Flag")
        )
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
        return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{words}{table}</div>'}

    # --- Codes -----------------------------------------------------------------------------------------------------

    def own_code(self, system: str, code: str, display: str) -> Json:
        return {"system": f"{OWN}:{system}", "code": code, "display": display}

    def own_system(self, name: str) -> str:
        """A system of identifiers that are unique within the laboratory only."""
        return f"{OWN}:{name}:{self.payload['laboratory']['id']}"


def coded(system: str, code: str, display: str) -> Json:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def component(code: str, words: str, value: Json) -> Json:
    return {"code": {"coding": [{"system": f"{OWN}:component", "code": code}], "text": words}, **value}


def percent(value: float) -> Json:
    return {"value": value, "unit": "%", "system": UCUM, "code": "%"}


def per_litre(value: float) -> Json:
    return {"value": value, "unit": "10^9/L", "system": UCUM, "code": "10*9/L"}


def without_empty(resource: Json) -> Json:
    """FHIR knows no empty lists: what is empty is left out."""
    return {name: value for name, value in resource.items() if value not in ([], "", None)}
