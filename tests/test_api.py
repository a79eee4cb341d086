"""The API as clients rely on it: shapes, statuses, codes, and who may do what."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest
import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from rest_framework.test import APIClient

from accounts.models import ApiToken, AuditEvent, User
from accounts.tokens import create_token
from classifier import pipeline
from classifier.models import Case, CellImage, ModelVersion
from tests.pictures import drawn_cell, encoded, jpeg_of_cell

Api = Callable[..., APIClient]
Upload = Callable[..., SimpleUploadedFile]
MakeImage = Callable[..., CellImage]


def images_url(case: Case) -> str:
    return f"/api/v1/cases/{case.pk}/images/"


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(response.content)
    assert body == {"type": ANY, "title": ANY, "status": status, "detail": ANY, "code": code} | (
        {"errors": ANY} if "errors" in body else {}
    )
    assert body["detail"].endswith(".")
    return body


# --- Cases -----------------------------------------------------------------------------------------------------


def test_case_is_opened_with_all_its_fields(api: Api, technologist: User) -> None:
    fields = {
        "accession_number": "A-77",
        "patient_pseudonym": "P-1",
        "specimen": "EDTA blood",
        "collected_at": "2026-11-20T08:15:00Z",
        "wbc_value": 7.25,
        "wbc_source": "XN-1000",
    }

    response = api(technologist).post("/api/v1/cases/", fields)

    assert response.status_code == 201
    body = response.json()
    assert {key: body[key] for key in fields} == fields
    assert body["status"] == "open"
    assert body["url"] == response["Location"] == f"http://testserver/api/v1/cases/{body['id']}/"
    assert AuditEvent.objects.filter(action="case_opened", target_id=body["id"], actor=technologist).exists()


def test_accession_number_is_generated_where_none_is_given(api: Api, technologist: User) -> None:
    bodies = [api(technologist).post("/api/v1/cases/", {}).json() for _ in range(2)]

    assert all(body["accession_number"] for body in bodies)
    assert bodies[0]["accession_number"] != bodies[1]["accession_number"]


def test_taken_accession_number_is_a_conflict_in_the_own_laboratory_only(
    api: Api, case: Case, technologist: User, stranger: User
) -> None:
    number = {"accession_number": case.accession_number}

    assert_problem(api(technologist).post("/api/v1/cases/", number), 409, "accession_number_taken")
    assert api(stranger).post("/api/v1/cases/", number).status_code == 201


def test_wbc_value_needs_its_source(api: Api, technologist: User) -> None:
    assert_problem(api(technologist).post("/api/v1/cases/", {"wbc_value": 6}), 400, "wbc_source_missing")


@pytest.mark.parametrize(
    "fields",
    [
        {"accession_number": "x" * 65},
        {"wbc_value": "many"},
        {"wbc_value": -3, "wbc_source": "analyser"},
        {"collected_at": "yesterday"},
        {"accession_number": "A\x00B"},
    ],
)
def test_unusable_field_is_named(api: Api, technologist: User, fields: dict[str, Any]) -> None:
    body = assert_problem(api(technologist).post("/api/v1/cases/", fields), 400, "invalid_input")

    assert {error["field"] for error in body["errors"]} == set(fields) - {"wbc_source"}


def test_malformed_json_is_a_problem_document(api: Api, technologist: User) -> None:
    response = api(technologist).post("/api/v1/cases/", b'{"acc', content_type="application/json")

    assert_problem(response, 400, "malformed_request")


def test_json_that_is_too_large_or_too_deep_is_a_problem_document(api: Api, technologist: User) -> None:
    client = api(technologist)
    large = client.post("/api/v1/cases/", b" " * (1024**2 + 1), content_type="application/json")
    deep = client.post("/api/v1/cases/", b"[" * 200_000, content_type="application/json")

    assert_problem(large, 413, "request_too_large")
    assert_problem(deep, 400, "malformed_request")


def test_field_that_is_null_is_a_field_that_was_not_given(api: Api, technologist: User) -> None:
    response = api(technologist).post("/api/v1/cases/", {"specimen": None, "accession_number": None, "wbc_value": None})

    assert response.status_code == 201


def test_session_without_csrf_token_is_told_what_is_missing(technologist: User) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(technologist)

    assert_problem(client.post("/api/v1/cases/", {}), 403, "csrf_failed")


def test_wrong_content_type_is_a_problem_document(api: Api, technologist: User) -> None:
    response = api(technologist).post("/api/v1/cases/", b"a,b", content_type="text/csv")

    assert_problem(response, 415, "unsupported_media_type")


def test_cases_come_in_cursor_pages_newest_first(api: Api, technologist: User) -> None:
    client = api(technologist)
    opened = [client.post("/api/v1/cases/", {"accession_number": f"N-{n}"}).json()["id"] for n in range(5)]

    seen: list[str] = []
    url = "/api/v1/cases/?page_size=2"
    while url:
        page = client.get(url).json()
        assert set(page) == {"next", "previous", "results"}
        assert len(page["results"]) <= 2
        seen += [row["id"] for row in page["results"]]
        url = page["next"]

    assert seen == opened[::-1]


# --- Images ----------------------------------------------------------------------------------------------------


def test_upload_is_accepted_then_classified(
    api: Api, technologist: User, case: Case, model_version: ModelVersion, smear: bytes, as_upload: Upload
) -> None:
    client = api(technologist)

    accepted = client.post(images_url(case), {"file": as_upload(smear)}, format="multipart")
    assert accepted.status_code == 202
    assert accepted.json() == {"id": ANY, "status": "queued", "url": accepted["Location"]}
    before = client.get(accepted.json()["url"]).json()
    pipeline.classify_queued()
    after = client.get(accepted.json()["url"]).json()

    assert (before["status"], before["prediction"], before["failure"], before["review"]) == ("queued", None, None, None)
    assert after["status"] == "classified"
    assert after["case"] == str(case.pk)
    prediction = after["prediction"]
    assert set(prediction) >= {
        "label", "suggestion", "confidence", "probabilities", "conformal_set", "abstained", "reason", "ood_score",
        "box", "model", "duration_ms",
    }  # fmt: skip
    assert prediction["model"] == {
        "name": model_version.name,
        "version": model_version.version,
        "sha256": model_version.sha256,
    }
    assert set(prediction["probabilities"]) == set(model_version.labels)
    assert isinstance(prediction["confidence"], float)


def test_every_white_cell_of_a_field_is_given_with_its_class(
    api: Api, reader: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    from tests.factories import prediction_of

    sure = {"box": [1, 2, 30, 40], "label": "monocyte", "suggestion": "monocyte", "confidence": 0.97}
    doubted = {"box": [50, 2, 90, 40], "label": None, "suggestion": "basophil", "confidence": 0.4}
    found = [
        sure | {"reason": None, "reason_code": None},
        doubted | {"reason": "The model is not sure.", "reason_code": "not_sure"},
    ]
    image = make_image("classified")
    prediction_of(image, model_version, leukocytes=found)

    assert api(reader).get(f"/api/v1/images/{image.pk}/").json()["prediction"]["leukocytes"] == found


def test_same_picture_again_is_the_same_image(api: Api, technologist: User, case: Case, as_upload: Upload) -> None:
    client = api(technologist)
    picture = drawn_cell(4)
    first = client.post(images_url(case), {"file": as_upload(encoded(picture, "PNG"))}, format="multipart")
    again = client.post(images_url(case), {"file": as_upload(encoded(picture, "BMP"), "copy.bmp")}, format="multipart")

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert CellImage.objects.count() == 1


def test_same_picture_in_another_case_is_another_image(
    api: Api, technologist: User, case: Case, as_upload: Upload, smear: bytes
) -> None:
    client = api(technologist)
    other = Case.objects.get(pk=client.post("/api/v1/cases/", {}).json()["id"])

    answers = [client.post(images_url(c), {"file": as_upload(smear)}, format="multipart") for c in (case, other)]

    assert [answer.status_code for answer in answers] == [202, 202]


def test_abstained_prediction_has_a_suggestion_but_no_label(
    api: Api, reader: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    from tests.factories import prediction_of

    image = make_image("classified")
    prediction_of(
        image, model_version, label="", abstained=True, reason_code="not_sure", reason="The model is not sure."
    )

    prediction = api(reader).get(f"/api/v1/images/{image.pk}/").json()["prediction"]

    assert (prediction["label"], prediction["suggestion"], prediction["abstained"]) == (None, "lymphocyte", True)
    assert prediction["reason"] == "The model is not sure."


def test_failed_image_says_why(api: Api, reader: User, make_image: MakeImage) -> None:
    image = make_image("failed")

    body = api(reader).get(f"/api/v1/images/{image.pk}/").json()

    assert body["failure"] == {"code": "prediction_failed", "message": ANY}


def test_failed_image_is_queued_again_by_hand(api: Api, technologist: User, make_image: MakeImage) -> None:
    image = make_image("failed")
    url = f"/api/v1/images/{image.pk}/requeue/"

    assert api(technologist).post(url).json()["status"] == "queued"
    assert_problem(api(technologist).post(url), 409, "nothing_to_requeue")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "empty_file"),
        (b"text", 400, "not_an_image"),
        (encoded(drawn_cell(1), "GIF"), 415, "unsupported_format"),
    ],
)
def test_bad_file_is_a_problem_and_leaves_nothing(
    api: Api, technologist: User, case: Case, as_upload: Upload, content: bytes, status: int, code: str, settings: Any
) -> None:
    response = api(technologist).post(images_url(case), {"file": as_upload(content)}, format="multipart")

    assert_problem(response, status, code)
    assert not CellImage.objects.exists()
    assert not list(Path(settings.MEDIA_ROOT).rglob("*.*"))


def test_hundred_megabytes_are_refused_without_being_kept(
    api: Api, technologist: User, case: Case, as_upload: Upload, settings: Any
) -> None:
    settings.FILE_UPLOAD_TEMP_DIR = settings.MEDIA_ROOT.parent
    response = api(technologist).post(images_url(case), {"file": as_upload(bytes(100 * 1024**2))}, format="multipart")

    body = assert_problem(response, 413, "file_too_large")
    assert "100.0" in body["detail"]
    assert "25.0" in body["detail"]


def test_no_file_and_several_files_are_told_apart(
    api: Api, technologist: User, case: Case, as_upload: Upload, smear: bytes
) -> None:
    client = api(technologist)

    assert_problem(client.post(images_url(case), {}, format="multipart"), 400, "no_file")
    several = {"file": [as_upload(smear), as_upload(jpeg_of_cell(2))]}
    assert_problem(client.post(images_url(case), several, format="multipart"), 400, "one_file_a_request")
    thousand = {"file": [as_upload(b"x") for _ in range(1000)]}
    assert_problem(client.post(images_url(case), thousand, format="multipart"), 400, "one_file_a_request")
    assert_problem(client.post(images_url(case), {"file": "a string"}, format="multipart"), 400, "no_file")


def test_path_in_a_file_name_stays_a_name(
    api: Api, technologist: User, case: Case, smear: bytes, settings: Any
) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../evil.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + smear + b"\r\n--b--\r\n"
    )
    response = api(technologist).post(images_url(case), body, content_type="multipart/form-data; boundary=b")

    image = CellImage.objects.get(pk=response.json()["id"])
    assert image.original_name == "evil.jpg"
    assert Path(image.file.path).is_relative_to(settings.MEDIA_ROOT)
    assert "evil" not in str(image.file.name)


# --- Who may do what -------------------------------------------------------------------------------------------

MAY_SEE = {"technologist", "reader", "auditor", "lab_admin", "service_account"}
MAY_UPLOAD = {"technologist", "reader", "service_account"}
ACTORS = ["technologist", "reader", "auditor", "lab_admin", "service_account", "stranger", "nobody"]


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize(
    "call", ["list cases", "open case", "see case", "list images", "upload", "see image", "requeue"]
)
def test_permissions(
    actor: str, call: str, api: Api, make_image: MakeImage, as_upload: Upload, request: pytest.FixtureRequest
) -> None:
    image = make_image("failed")
    user = None if actor == "nobody" else request.getfixturevalue(actor)
    client = api(user)
    case_url, image_url = f"/api/v1/cases/{image.case_id}/", f"/api/v1/images/{image.pk}/"
    response = {
        "list cases": lambda: client.get("/api/v1/cases/"),
        "open case": lambda: client.post("/api/v1/cases/", {}),
        "see case": lambda: client.get(case_url),
        "list images": lambda: client.get(f"{case_url}images/"),
        "upload": lambda: client.post(f"{case_url}images/", {"file": as_upload(jpeg_of_cell(9))}, format="multipart"),
        "see image": lambda: client.get(image_url),
        "requeue": lambda: client.post(f"{image_url}requeue/"),
    }[call]()

    if actor == "nobody":
        expected = 401
    elif actor == "stranger":
        expected = {"list cases": 200, "open case": 201}.get(call, 404)
    elif call in {"list cases", "see case", "list images", "see image"}:
        expected = 200 if actor in MAY_SEE else 403
    else:
        expected = {"open case": 201, "upload": 202, "requeue": 202}[call] if actor in MAY_UPLOAD else 403
    assert response.status_code == expected
    if actor == "stranger" and call == "list cases":
        assert response.json()["results"] == []


def test_platform_operator_sees_no_patient_data(api: Api, operator: User, case: Case) -> None:
    client = APIClient()
    client.force_authenticate(operator)

    assert client.get("/api/v1/cases/").status_code == 403
    assert client.get(f"/api/v1/cases/{case.pk}/").status_code == 403


def test_token_with_read_scope_reads_and_does_not_upload(
    api: Api, technologist: User, case: Case, as_upload: Upload, smear: bytes
) -> None:
    client = api(technologist, ("read",))

    assert client.get(f"/api/v1/cases/{case.pk}/").status_code == 200
    refused = client.post(images_url(case), {"file": as_upload(smear)}, format="multipart")
    assert_problem(refused, 403, "not_allowed")


@pytest.mark.parametrize("header", ["Token nonsense", "Token", "Token a b", "Bearer x"])
def test_bad_token_is_a_problem(header: str, db: None) -> None:
    response = APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=header)

    assert_problem(response, 401, "not_authenticated" if header.startswith("Bearer") else "invalid_token")
    assert response["WWW-Authenticate"] == "Token"


def test_expired_token_opens_nothing(technologist: User) -> None:
    from datetime import timedelta

    token = create_token(user=technologist, lifetime=timedelta(seconds=-1))

    assert APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=f"Token {token}").status_code == 401


def test_token_is_stored_as_a_hash_and_its_use_is_noted(api: Api, technologist: User) -> None:
    text = create_token(user=technologist)
    APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=f"Token {text}")

    token = ApiToken.objects.get()
    assert text not in {token.digest, token.token_key}
    assert token.last_used_at is not None


def test_create_token_prints_the_bare_token_on_its_last_line(
    technologist: User, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("create_token", technologist.email)

    token = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)[-1]
    assert APIClient().get("/api/v1/cases/", HTTP_AUTHORIZATION=f"Token {token}").status_code == 200


def test_unknown_address_and_unknown_id_are_problems(api: Api, technologist: User) -> None:
    assert_problem(api(technologist).get("/api/v1/nonsense/"), 404, "not_found")
    assert_problem(api(technologist).get(f"/api/v1/images/{uuid4()}/"), 404, "not_found")
    assert_problem(api(technologist).get("/api/v1/images/not-a-uuid/"), 404, "not_found")
    assert_problem(api(technologist).delete("/api/v1/cases/"), 405, "method_not_allowed")


# --- Description -----------------------------------------------------------------------------------------------


def test_schema_is_valid_and_free_of_warnings(tmp_path: Path) -> None:
    target = tmp_path / "schema.yaml"

    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(target))

    paths = yaml.safe_load(target.read_text())["paths"]
    assert "/api/v1/cases/{case_id}/images/" in paths


@pytest.mark.parametrize("url", ["/api/v1/schema/", "/api/v1/docs/"])
def test_description_needs_no_user(url: str, db: None) -> None:
    assert APIClient().get(url).status_code == 200


@pytest.mark.parametrize("count", [1, 12])
def test_number_of_queries_does_not_grow_with_the_rows(
    count: int,
    api: Api,
    reader: User,
    make_image: MakeImage,
    model_version: ModelVersion,
    django_assert_max_num_queries: Any,
) -> None:
    from tests.factories import prediction_of

    images = [make_image("classified") for _ in range(count)]
    for image in images:
        prediction_of(image, model_version)
    client = api(reader)
    client.get("/api/v1/cases/")

    with django_assert_max_num_queries(7):
        body = client.get(images_url(images[0].case)).json()
    assert len(body["results"]) == count
