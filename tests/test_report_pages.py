"""The doors of reports: the pages that sign, reopen and show them, the files, and the API."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pypdf import PdfReader
from rest_framework.test import APIClient

from accounts.models import AuditEvent, Laboratory, User
from classifier.models import Case, ModelVersion, Report, Void
from classifier.reports.exports import KINDS
from classifier.services.reports import amend_report, release_report
from tests.conftest import PASSWORD
from tests.factories import image_in_state, prediction_of
from tests.signing import ready_to_sign, settings_row

SignIn = Callable[[User], Client]
Api = Callable[..., APIClient]
ROLES = ["technologist", "reader", "auditor", "lab_admin"]


@pytest.fixture
def reviewed_case(case: Case, technologist: User, model_version: ModelVersion) -> Case:
    return ready_to_sign(case, technologist=technologist, model_version=model_version)


@pytest.fixture
def signed(reviewed_case: Case, reader: User) -> Report:
    return release_report(actor=reader, case=reviewed_case, password=PASSWORD, comment="All as expected.")


@pytest.fixture
def two_versions(signed: Report, reviewed_case: Case, reader: User, technologist: User) -> Report:
    """The second version, corrected: one more lymphocyte, another comment."""
    amend_report(actor=reader, case=reviewed_case, kind="corrected", reason="One cell was overlooked.")
    image_in_state("reviewed", case=reviewed_case, uploaded_by=technologist)
    return release_report(actor=reader, case=reviewed_case, password=PASSWORD, comment="One more lymphocyte.")


def page_of(report: Report) -> str:
    return reverse("report", args=[report.case_id, report.version])


def text_of(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def file_of(report: Report, kind: str) -> str:
    return reverse("report-file", args=[report.case_id, report.version, kind])


# --- The page of a report ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_everybody_of_the_laboratory_reads_a_report(
    role: str, signed: Report, sign_in: SignIn, request: pytest.FixtureRequest
) -> None:
    page = text_of(sign_in(request.getfixturevalue(role)), page_of(signed))

    assert "Released, version 1, in force" in page
    assert signed.payload["statement"] in page
    assert "All as expected." in page
    assert signed.sha256 in page
    for limit in signed.payload["limits"]:
        assert limit in page


def test_page_shows_the_time_in_the_laboratorys_zone_and_in_utc(
    signed: Report, sign_in: SignIn, technologist: User
) -> None:
    page = text_of(sign_in(technologist), page_of(signed))
    assert signed.payload["report"]["signed_at_local"] in page
    assert f"{signed.signed_at:%H:%M} UTC" in page


@pytest.mark.parametrize("who", ["stranger", "operator"])
def test_stranger_gets_404_for_everything_about_a_report(
    who: str, signed: Report, sign_in: SignIn, request: pytest.FixtureRequest
) -> None:
    client = sign_in(request.getfixturevalue(who))
    for url in (
        page_of(signed),
        reverse("case-reports", args=[signed.case_id]),
        reverse("case-release", args=[signed.case_id]),
        reverse("case-amend", args=[signed.case_id]),
        *(file_of(signed, kind) for kind in KINDS),
    ):
        assert client.get(url).status_code == 404


def test_reports_address_leads_to_the_newest_version(two_versions: Report, sign_in: SignIn, technologist: User) -> None:
    response = sign_in(technologist).get(reverse("case-reports", args=[two_versions.case_id]))
    assert response["Location"] == page_of(two_versions)


def test_case_without_a_report_has_no_report_page(case: Case, sign_in: SignIn, reader: User) -> None:
    client = sign_in(reader)
    assert client.get(reverse("case-reports", args=[case.pk])).status_code == 404
    assert client.get(reverse("report", args=[case.pk, 1])).status_code == 404
    assert client.get(reverse("case-amend", args=[case.pk])).status_code == 404


def test_superseded_version_says_so_and_leads_to_the_newest(
    signed: Report, two_versions: Report, sign_in: SignIn, technologist: User
) -> None:
    page = text_of(sign_in(technologist), page_of(signed))
    assert "Released, version 1, superseded" in page
    assert "Do not act on this one" in page
    assert page_of(two_versions) in page


def test_new_version_shows_what_changed_then_and_now(two_versions: Report, sign_in: SignIn, technologist: User) -> None:
    page = text_of(sign_in(technologist), page_of(two_versions))
    assert "What changed since version 1" in page
    assert "One cell was overlooked." in page
    assert "<del>All as expected.</del>" in page
    assert "<ins>One more lymphocyte.</ins>" in page
    assert "<del>2</del>" in page
    assert "<ins>3</ins>" in page
    assert ">changed</span>" in page


def test_report_that_is_being_amended_says_who_opened_it_and_why(
    signed: Report, reviewed_case: Case, sign_in: SignIn, reader: User
) -> None:
    amend_report(actor=reader, case=reviewed_case, kind="corrected", reason="One cell was overlooked.")
    page = text_of(sign_in(reader), page_of(signed))
    assert "Released, version 1, being amended" in page
    assert "Until it is signed, this one stays in force" in page
    assert "One cell was overlooked." in page
    assert reverse("case-release", args=[reviewed_case.pk]) in page


def test_report_of_a_void_case_is_entered_in_error(
    signed: Report, reviewed_case: Case, sign_in: SignIn, reader: User
) -> None:
    Case.objects.filter(pk=reviewed_case.pk).update(status="void")
    Void(case=reviewed_case, reason="Wrong patient", by=reader).save()
    client = sign_in(reader)
    page = text_of(client, page_of(signed))
    assert "Entered in error: this case was voided" in page
    assert "Wrong patient" in page
    release = text_of(client, reverse("case-release", args=[reviewed_case.pk]))
    assert "This case is void: nothing of it can be released." in release
    assert "Draft - not signed" not in release
    bundle = json.loads(client.get(file_of(signed, "fhir")).content)
    assert bundle["entry"][0]["resource"]["status"] == "entered-in-error"


def test_altered_report_is_marked_and_not_handed_out(
    signed: Report, sign_in: SignIn, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Report, "is_whole", False)
    client = sign_in(reader)
    page = text_of(client, page_of(signed))
    assert "no longer what was signed" in page
    assert file_of(signed, "pdf") not in page
    assert client.get(file_of(signed, "pdf")).status_code == 302
    assert not AuditEvent.objects.filter(action="report_exported").exists()


def test_reading_a_report_is_in_the_audit_trail(signed: Report, sign_in: SignIn, auditor: User) -> None:
    text_of(sign_in(auditor), page_of(signed))
    event = AuditEvent.objects.get(action="report_viewed")
    assert (event.actor, event.target_id) == (auditor, str(signed.pk))


def test_only_readers_are_offered_to_amend(signed: Report, sign_in: SignIn, reader: User, technologist: User) -> None:
    link = reverse("case-amend", args=[signed.case_id])
    assert link in text_of(sign_in(reader), page_of(signed))
    assert link not in text_of(sign_in(technologist), page_of(signed))
    assert sign_in(technologist).get(link).status_code == 403
    assert sign_in(technologist).get(reverse("case-release", args=[signed.case_id])).status_code == 403


def test_page_of_a_report_takes_a_fixed_number_of_queries(
    two_versions: Report, sign_in: SignIn, technologist: User, django_assert_max_num_queries: Any
) -> None:
    client = sign_in(technologist)
    client.get(page_of(two_versions))
    # Session, user, laboratory of both, the case, the versions with their amendment, two contents, the audit event
    # and what the frame of every page asks.
    with django_assert_max_num_queries(12):
        client.get(page_of(two_versions))


# --- Signing on the page -------------------------------------------------------------------------------------------


def seen_on(client: Client, url: str) -> str:
    return str(client.get(url).context["seen"])


def test_reader_signs_on_the_page(reviewed_case: Case, sign_in: SignIn, reader: User) -> None:
    client = sign_in(reader)
    url = reverse("case-release", args=[reviewed_case.pk])
    page = text_of(client, url)
    assert "Draft - not signed" in page
    assert "AI suggestion" not in page.replace("Dashed: AI suggestion.", "")
    form = {"password": PASSWORD, "comment": "All as expected.", "seen": seen_on(client, url)}

    response = client.post(url, form)

    report = Report.objects.get()
    assert response["Location"] == page_of(report)
    assert client.post(url, form)["Location"] == reverse("case-reports", args=[reviewed_case.pk])
    assert Report.objects.count() == 1
    assert report.payload["report"]["comment"] == "All as expected."
    assert "is signed already" in text_of(client, url)


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"password": "wrong"}, 403, "That is not your password"),
        ({"password": ""}, 400, "This field is required"),
        ({"password": PASSWORD, "comment": "x" * 2001}, 400, "at most 2000 characters"),
        ({"password": PASSWORD, "seen": "0" * 64}, 409, "has changed since you opened this page"),
    ],
)
def test_refused_signature_says_why_and_keeps_what_was_typed(
    form: dict[str, str], status: int, words: str, reviewed_case: Case, sign_in: SignIn, reader: User
) -> None:
    client = sign_in(reader)
    response = client.post(reverse("case-release", args=[reviewed_case.pk]), {"comment": "Typed text", **form})
    page = response.content.decode()
    assert response.status_code == status
    assert words in page
    assert "comment" in form or "Typed text" in page
    assert f'value="{PASSWORD}"' not in page
    assert not Report.objects.exists()


def test_what_changed_meanwhile_is_not_signed_unseen(
    reviewed_case: Case, sign_in: SignIn, reader: User, technologist: User
) -> None:
    client = sign_in(reader)
    url = reverse("case-release", args=[reviewed_case.pk])
    seen = seen_on(client, url)
    image_in_state("reviewed", case=reviewed_case, uploaded_by=technologist)

    response = client.post(url, {"password": PASSWORD, "seen": seen})

    assert response.status_code == 409
    assert not Report.objects.exists()
    assert client.post(url, {"password": PASSWORD, "seen": response.context["seen"]}).status_code == 302


def test_page_lists_what_stands_in_the_way_with_links(
    reviewed_case: Case, sign_in: SignIn, reader: User, technologist: User, model_version: ModelVersion
) -> None:
    prediction_of(image_in_state("classified", case=reviewed_case, uploaded_by=technologist), model_version)
    client = sign_in(reader)
    url = reverse("case-release", args=[reviewed_case.pk])
    page = text_of(client, url)
    assert "AI suggestion - not verified. For trained reviewers; not for diagnosis." in page
    assert f'href="{reverse("case", args=[reviewed_case.pk])}?show=unreviewed"' in page
    assert 'type="password"' not in page
    refused = client.post(url, {"password": PASSWORD})
    assert refused.status_code == 409
    assert "can&#x27;t be released yet" in refused.content.decode()


def test_too_few_cells_ask_for_a_reason_on_the_page(
    reviewed_case: Case, laboratory: Laboratory, sign_in: SignIn, reader: User
) -> None:
    settings_row(laboratory, version=2, target_count=100)
    client = sign_in(reader)
    url = reverse("case-release", args=[reviewed_case.pk])
    assert "Reason for releasing with too few cells" in text_of(client, url)
    assert client.post(url, {"password": PASSWORD}).status_code == 400
    assert client.post(url, {"password": PASSWORD, "reason": "A thin smear."}).status_code == 302
    assert Report.objects.get().reason == "A thin smear."


def test_uploader_learns_on_the_page_that_somebody_else_has_to_sign(
    reviewed_case: Case, laboratory: Laboratory, sign_in: SignIn, reader: User
) -> None:
    image_in_state("reviewed", case=reviewed_case, uploaded_by=reader)
    settings_row(laboratory, version=2, uploader_may_release=False)
    client = sign_in(reader)
    url = reverse("case-release", args=[reviewed_case.pk])
    page = text_of(client, url)
    assert "your laboratory wants somebody else to release it" in page
    assert 'type="password"' not in page
    assert client.post(url, {"password": PASSWORD}).status_code == 403


def test_reader_opens_a_report_again_on_the_page(signed: Report, sign_in: SignIn, reader: User) -> None:
    client = sign_in(reader)
    url = reverse("case-amend", args=[signed.case_id])
    text_of(client, url)
    assert client.post(url, {"kind": "corrected"}).status_code == 400

    response = client.post(url, {"kind": "corrected", "reason": "One cell was overlooked."})

    assert response["Location"] == reverse("case", args=[signed.case_id])
    assert "is being amended already" in text_of(client, url)
    assert "Version 1 is being corrected" in text_of(client, reverse("case-release", args=[signed.case_id]))


def test_release_page_takes_the_same_number_of_queries_for_many_images(
    reviewed_case: Case, sign_in: SignIn, reader: User, technologist: User, django_assert_max_num_queries: Any
) -> None:
    client = sign_in(reader)
    url = reverse("case-release", args=[reviewed_case.pk])
    for _ in range(3):
        image_in_state("reviewed", case=reviewed_case, uploaded_by=technologist)
    with django_assert_max_num_queries(13):  # one of them notes the look in the audit trail
        client.get(url)


# --- The files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_file_is_a_download_without_patient_text_in_its_name_and_audited(
    kind: str, signed: Report, sign_in: SignIn, technologist: User
) -> None:
    response = sign_in(technologist).get(file_of(signed, kind))
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    assert response["Content-Disposition"].startswith(f'attachment; filename="report-{signed.pk}-v1')
    assert signed.case.accession_number not in response["Content-Disposition"]
    event = AuditEvent.objects.get(action="report_exported")
    assert event.facts == {"case": str(signed.case_id), "kind": kind}


def test_unknown_kind_of_file_is_404(signed: Report, sign_in: SignIn, technologist: User) -> None:
    assert sign_in(technologist).get(file_of(signed, "docx")).status_code == 404


def test_json_holds_the_signed_bytes_and_what_they_are_worth(
    signed: Report, two_versions: Report, sign_in: SignIn, technologist: User
) -> None:
    content = sign_in(technologist).get(file_of(signed, "json")).content
    assert signed.payload_json.encode() in content
    beside = {"sha256": signed.sha256, "standing": "superseded", "patient_pseudonym": ""}
    assert json.loads(content) == {"payload": signed.payload, **beside}


def test_page_pdf_fhir_csv_and_api_give_the_same_figures(
    two_versions: Report, sign_in: SignIn, api: Api, technologist: User
) -> None:
    client = sign_in(technologist)
    page = text_of(client, page_of(two_versions))
    pdf = PdfReader(io.BytesIO(client.get(file_of(two_versions, "pdf")).content))
    printed = " ".join(" ".join(sheet.extract_text() for sheet in pdf.pages).split())
    bundle = json.loads(client.get(file_of(two_versions, "fhir")).content)
    rows = list(csv.DictReader(io.StringIO(client.get(file_of(two_versions, "csv")).content.decode("utf-8-sig"))))
    answered = api(technologist).get(reverse("api-report", args=[two_versions.pk])).json()["payload"]

    observations = {
        entry["resource"]["code"]["coding"][-1]["code"]: entry["resource"]
        for entry in bundle["entry"]
        if entry["resource"]["resourceType"] == "Observation"
    }
    cells = two_versions.payload["differential"]["cells"]
    assert {cell["label"] for cell in cells} >= {"lymphocyte", "neutrophil", "monocyte"}
    assert answered["differential"]["cells"] == cells
    for cell in cells:
        percent, limits = f"{cell['percent']:.1f}", f"{cell['low']:.1f} - {cell['high']:.1f}"
        observation = observations[cell["label"]]
        row = next(row for row in rows if row["label"] == cell["label"])
        for text in (page, printed):
            assert percent in text
            assert limits in text
        components = {part["code"]["coding"][0]["code"]: part for part in observation["component"]}
        assert observation["valueQuantity"]["value"] == cell["percent"] == float(row["percent"])
        assert components["limit-low"]["valueQuantity"]["value"] == cell["low"] == float(row["low"])
        assert components["limit-high"]["valueQuantity"]["value"] == cell["high"] == float(row["high"])
        assert components["n"]["valueInteger"] == cell["n"] == int(row["n"])
        flag = observation.get("interpretation", [{"coding": [{"code": "N"}]}])[0]["coding"][0]["code"]
        assert flag == (cell["flag"] or "N") == (row["flag"] or "N")


# --- The API -------------------------------------------------------------------------------------------------------


def test_client_signs_reads_and_takes_away(reviewed_case: Case, api: Api, reader: User) -> None:
    client = api(reader)
    answer = client.post(reverse("api-case-reports", args=[reviewed_case.pk]), {"password": PASSWORD})
    assert answer.status_code == 201
    body = answer.json()
    assert body["version"] == 1
    report = Report.objects.get(pk=body["id"])
    assert body["sha256"] == report.sha256
    assert answer["Location"].endswith(reverse("api-report", args=[report.pk]))

    detail = client.get(reverse("api-report", args=[report.pk])).json()
    assert detail["standing"] == "current"
    assert detail["signed_by"] == "Ruth Reyes"
    assert detail["payload"] == report.payload
    assert AuditEvent.objects.filter(action="report_viewed", target_id=str(report.pk)).exists()
    versions = client.get(reverse("api-case-reports", args=[reviewed_case.pk])).json()
    assert [version["id"] for version in versions["results"]] == [str(report.pk)]
    assert "payload" not in versions["results"][0]


@pytest.mark.parametrize(
    ("name", "content_type", "accept"),
    [
        ("api-report-pdf", "application/pdf", "application/pdf"),
        ("api-report-fhir", "application/fhir+json", "application/fhir+json"),
        ("api-report-csv", "text/csv", "text/csv"),
        ("api-report-cells", "text/csv", "*/*"),
    ],
)
def test_client_takes_files_away(
    name: str, content_type: str, accept: str, signed: Report, api: Api, technologist: User
) -> None:
    answer = api(technologist).get(reverse(name, args=[signed.pk]), HTTP_ACCEPT=accept)
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith(content_type)
    assert AuditEvent.objects.filter(action="report_exported", target_id=str(signed.pk)).exists()


def test_blocked_release_is_a_problem_with_its_reasons(
    reviewed_case: Case, api: Api, reader: User, technologist: User
) -> None:
    image_in_state("failed", case=reviewed_case, uploaded_by=technologist)
    answer = api(reader).post(reverse("api-case-reports", args=[reviewed_case.pk]), {"password": PASSWORD})
    body = answer.json()
    assert answer.status_code == 409
    assert answer["Content-Type"] == "application/problem+json"
    assert body["code"] == "release_blocked"
    assert [(reason["code"], reason["count"]) for reason in body["errors"]] == [("failed", 1)]


def test_client_amends_and_signs_the_next_version(signed: Report, api: Api, reader: User) -> None:
    client = api(reader)
    amendments = reverse("api-case-amendments", args=[signed.case_id])
    answer = client.post(amendments, {"kind": "amended", "reason": "A comment is added."})
    assert answer.status_code == 201
    assert answer.json()["report"] == str(signed.pk)
    assert client.post(amendments, {"kind": "amended", "reason": "Again."}).json()["code"] == "already_being_amended"

    body = {"password": PASSWORD, "comment": "Added."}
    assert client.post(reverse("api-case-reports", args=[signed.case_id]), body).json()["version"] == 2
    versions = client.get(reverse("api-case-reports", args=[signed.case_id])).json()["results"]
    assert [(version["version"], version["standing"]) for version in versions] == [(2, "current"), (1, "superseded")]


def test_client_takes_a_draft_away_as_partial_until_it_is_signed(
    reviewed_case: Case, api: Api, technologist: User, reader: User, stranger: User
) -> None:
    url = reverse("api-case-draft-fhir", args=[reviewed_case.pk])
    bundle = json.loads(api(technologist).get(url).content)
    assert bundle["entry"][0]["resource"]["status"] == "partial"
    assert AuditEvent.objects.filter(action="draft_exported", target_id=str(reviewed_case.pk)).exists()
    assert api(stranger).get(url).status_code == 404

    release_report(actor=reader, case=reviewed_case, password=PASSWORD)
    assert api(technologist).get(url).json()["code"] == "already_released"


@pytest.mark.parametrize(
    ("role", "scopes", "status"),
    [
        ("technologist", (), 403),
        ("auditor", (), 403),
        ("lab_admin", (), 403),
        ("service_account", (), 403),
        ("reader", ("read", "upload", "review"), 403),
        ("reader", ("release", "read"), 201),
        ("stranger", (), 404),
    ],
)
def test_release_needs_the_role_and_the_scope(
    role: str, scopes: tuple[str, ...], status: int, reviewed_case: Case, api: Api, request: pytest.FixtureRequest
) -> None:
    client = api(request.getfixturevalue(role), scopes)
    url = reverse("api-case-reports", args=[reviewed_case.pk])
    assert client.post(url, {"password": PASSWORD}).status_code == status


def test_amendment_needs_the_role(signed: Report, api: Api, technologist: User, stranger: User) -> None:
    url = reverse("api-case-amendments", args=[signed.case_id])
    body = {"kind": "amended", "reason": "Why not."}
    assert api(technologist).post(url, body).status_code == 403
    assert api(stranger).post(url, body).status_code == 404


def test_stranger_gets_404_for_a_report_of_another_laboratory(signed: Report, api: Api, stranger: User) -> None:
    for name in ("api-report", "api-report-pdf", "api-report-fhir", "api-report-csv", "api-report-cells"):
        assert api(stranger).get(reverse(name, args=[signed.pk])).status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_input"),
        ({"password": None}, 400, "invalid_input"),
        ({"password": "wrong"}, 403, "wrong_password"),
        ({"password": PASSWORD, "reason": "x" * 501}, 400, "invalid_input"),
        ({"password": ["a"]}, 400, "invalid_input"),
    ],
)
def test_release_that_makes_no_sense_is_a_problem(
    body: dict[str, Any], status: int, code: str, reviewed_case: Case, api: Api, reader: User
) -> None:
    answer = api(reader).post(reverse("api-case-reports", args=[reviewed_case.pk]), body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_sixth_wrong_password_is_429_on_page_and_api_alike(
    reviewed_case: Case, api: Api, sign_in: SignIn, reader: User
) -> None:
    client, url = api(reader), reverse("api-case-reports", args=[reviewed_case.pk])
    for _ in range(5):
        assert client.post(url, {"password": "wrong"}).status_code == 403
    assert client.post(url, {"password": PASSWORD}).json()["code"] == "too_many_tries"
    page = sign_in(reader).post(reverse("case-release", args=[reviewed_case.pk]), {"password": PASSWORD})
    assert page.status_code == 429
    assert not Report.objects.exists()


def test_password_reaches_no_log(
    reviewed_case: Case, api: Api, reader: User, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    client, url = api(reader), reverse("api-case-reports", args=[reviewed_case.pk])
    client.post(url, {"password": "hunter2-hunter2"})
    client.post(url, {"password": PASSWORD})
    shown = capsys.readouterr()
    everything = caplog.text + shown.out + shown.err
    assert "hunter2" not in everything
    assert PASSWORD not in everything
