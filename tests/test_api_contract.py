"""Bad input of every kind, what the OpenAPI document promises, and how clients are told what will go."""

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import path, reverse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from accounts.models import User
from classifier.api.deprecation import Deprecation
from classifier.models import Case, CellImage
from tests.factories import image_in_state

Api = Callable[..., APIClient]
JSON = "application/json"


def assert_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    body: dict[str, Any] = json.loads(response.content)
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"].endswith(".")
    assert {"type", "title"} <= set(body)
    return body


# --- Bad input -------------------------------------------------------------------------------------------------

BODIES: list[tuple[bytes, str, int, str]] = [
    (b"specimen=EDTA", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    (b"<case/>", "application/xml", 415, "unsupported_media_type"),
    (b'{"specimen": "EDTA"} and more', JSON, 400, "malformed_request"),
    (b'{"specimen": "EDTA"', JSON, 400, "malformed_request"),
    (b'{"specimen": NaN}', JSON, 400, "malformed_request"),
    (b'{"wbc_value": Infinity}', JSON, 400, "malformed_request"),
    (b"\xff\xfe{}", JSON, 400, "malformed_request"),
    (b'{"specimen": "\\ud800"}', JSON, 400, "invalid_input"),
    (b'{"specimen": "a\\u0000b"}', JSON, 400, "invalid_input"),
    (b"[]", JSON, 400, "invalid_input"),
    (b'"EDTA"', JSON, 400, "invalid_input"),
    (b"null", JSON, 400, "invalid_input"),
    (b'{"specimen": {"a": 1}}', JSON, 400, "invalid_input"),
    (b'{"wbc_value": 1e400, "wbc_source": "XN"}', JSON, 400, "invalid_input"),
    (b'{"wbc_value": 123456.789, "wbc_source": "XN"}', JSON, 400, "invalid_input"),
    (b'{"wbc_value": -0.01, "wbc_source": "XN"}', JSON, 400, "invalid_input"),
    (b'{"collected_at": "1899-12-31T00:00:00Z"}', JSON, 400, "collected_at_implausible"),
    (b'{"collected_at": "0001-01-01T00:00:00+14:00"}', JSON, 400, "invalid_input"),
    (b'{"collected_at": "2026-13-01T00:00:00Z"}', JSON, 400, "invalid_input"),
    (b'{"wbc_vaule": 7}', JSON, 400, "unknown_field"),
    (b'{"status": "released"}', JSON, 400, "unknown_field"),
    (b'{"specimen": "' + b"x" * (1024**2) + b'"}', JSON, 413, "request_too_large"),
    (b'{"a":' * 100_000, JSON, 400, "malformed_request"),
]


@pytest.mark.parametrize(("body", "kind", "status", "code"), BODIES, ids=range(len(BODIES)))
def test_bad_body_is_a_problem_and_has_no_effect(
    api: Api, technologist: User, body: bytes, kind: str, status: int, code: str
) -> None:
    response = api(technologist).post("/api/v1/cases/", body, content_type=kind)

    assert_problem(response, status, code)
    assert not Case.objects.exists()


@pytest.mark.parametrize(("body", "kind", "status", "code"), BODIES[:2] + BODIES[-2:], ids=range(4))
def test_bad_body_with_a_key_is_the_same_problem(
    api: Api, technologist: User, body: bytes, kind: str, status: int, code: str
) -> None:
    response = api(technologist).post("/api/v1/cases/", body, content_type=kind, headers={"Idempotency-Key": "k"})

    assert_problem(response, status, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"verdict": "PERHAPS"}, "unknown_verdict"),
        ({"verdict": "MANUAL", "final_label": "blast"}, "unknown_cell_type"),
        ({"verdict": "MANUAL", "final_label": "basophil", "previous_review": "latest"}, "invalid_input"),
        ({"verdict": "MANUAL", "final_label": "basophil", "comment": "x" * 1001}, "invalid_input"),
        ({}, "invalid_input"),
    ],
)
def test_bad_review_is_a_problem(api: Api, technologist: User, case: Case, body: dict[str, Any], code: str) -> None:
    image = image_in_state("failed", case=case, uploaded_by=technologist)

    assert_problem(api(technologist).post(f"/api/v1/images/{image.pk}/reviews/", body), 400, code)


@pytest.mark.parametrize("identifier", ["nonsense", "0", "0b6f2c3e-6d0a-4f0f-9a55", "%00", "..%2f..", "A-1001"])
@pytest.mark.parametrize("what", ["cases", "images", "reports", "models", "batches", "webhooks"])
def test_id_that_is_none_is_not_found(api: Api, technologist: User, identifier: str, what: str) -> None:
    assert_problem(api(technologist).get(f"/api/v1/{what}/{identifier}/"), 404, "not_found")


def test_upload_that_is_no_form_is_a_problem(api: Api, technologist: User, case: Case) -> None:
    client, url = api(technologist), f"/api/v1/cases/{case.pk}/images/"
    no_boundary = client.post(url, b"picture", content_type="multipart/form-data")
    as_json = client.post(url, {"file": "picture"}, format="json")

    assert_problem(no_boundary, 400, "malformed_request")
    assert_problem(as_json, 415, "unsupported_media_type")
    assert not CellImage.objects.exists()


def test_type_that_is_not_there_can_not_be_asked_for(api: Api, reader: User, case: Case) -> None:
    response = api(reader).get(f"/api/v1/cases/{case.pk}/", HTTP_ACCEPT="application/xml")

    assert_problem(response, 406, "not_acceptable")


# --- Addresses that will go ------------------------------------------------------------------------------------


class OldAddress(APIView):
    deprecation = Deprecation(since=date(2027, 1, 1), sunset=date(2027, 7, 1), successor="api-cases")

    def get(self, request: Request) -> Response:
        return Response({})


class OldAddressWithoutSuccessor(OldAddress):
    deprecation = Deprecation(since=date(2027, 1, 1), sunset=date(2027, 7, 1))


urlpatterns = [
    path("api/v1/old/", OldAddress.as_view()),
    path("api/v1/older/", OldAddressWithoutSuccessor.as_view()),
    path("api/v1/cases/", OldAddress.as_view(), name="api-cases"),
]


@pytest.mark.urls("tests.test_api_contract")
def test_address_that_will_go_says_since_when_until_when_and_what_instead(api: Api, reader: User) -> None:
    for client, status in ((api(reader), 200), (APIClient(), 401)):
        response = client.get("/api/v1/old/")
        assert response.status_code == status
        assert response["Deprecation"] == "@1798761600"
        assert response["Sunset"] == "Thu, 01 Jul 2027 00:00:00 GMT"
        assert response["Link"] == f'<{reverse("api-cases")}>; rel="successor-version"'
    assert "Link" not in api(reader).get("/api/v1/older/")


def test_address_that_stays_says_nothing_of_the_kind(api: Api, reader: User) -> None:
    response = api(reader).get("/api/v1/cases/")

    assert "Deprecation" not in response
    assert "Sunset" not in response


# --- The OpenAPI document --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As `manage.py spectacular` writes it, valid and without a warning."""
    target = tmp_path_factory.mktemp("schema") / "schema.json"
    options = ["--validate", "--fail-on-warn", "--format", "openapi-json", "--file", str(target)]
    call_command("spectacular", *options)
    described: dict[str, Any] = json.loads(target.read_text())
    return described


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (where, method, operation)
        for where, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in {"get", "post", "put", "patch", "delete"} and "/schema/" not in where
    ]


def test_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert len(operations(document)) > 40


def test_every_operation_names_its_refusals_and_their_shape(document: dict[str, Any]) -> None:
    for where, method, operation in operations(document):
        refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        needed = {"400", "401", "403", "404", "429"} | ({"409", "415"} if method in {"post", "patch"} else set())
        assert needed <= set(refusals), (where, method)
        for answer in refusals.values():
            assert list(answer["content"]) == ["application/problem+json"]
            assert answer["description"]


def test_every_post_offers_a_key_and_nothing_else_does(document: dict[str, Any]) -> None:
    for where, method, operation in operations(document):
        names = {parameter["name"] for parameter in operation.get("parameters", [])}
        assert ("Idempotency-Key" in names) == (method == "post"), where


def test_every_operation_is_explained(document: dict[str, Any]) -> None:
    unexplained = [
        (where, method) for where, method, operation in operations(document) if "description" not in operation
    ]

    assert unexplained == []


def test_examples_are_of_the_shape_that_they_show(document: dict[str, Any]) -> None:
    """Read from the document itself: an example with a field too many or too few misleads."""
    shown = 0
    schemas = document["components"]["schemas"]
    for _, _, operation in operations(document):
        for answer in operation["responses"].values():
            for content in answer.get("content", {}).values():
                name = content["schema"].get("$ref", "").rsplit("/", 1)[-1]
                for example in content.get("examples", {}).values():
                    if name in schemas:
                        assert set(example["value"]) <= set(schemas[name]["properties"])
                        shown += 1
    assert shown
