"""What was entered in error, or is not read yet, is said wherever numbers leave the system."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from accounts.models import User
from classifier import services
from classifier.errors import Conflict, InvalidInput
from classifier.models import Case, CellImage, ModelVersion
from classifier.reports.fhir import fhir_bundle
from classifier.reports.payload import draft_payload, shown_payload
from classifier.reports.standing import Standing
from tests.conftest import PASSWORD
from tests.factories import prediction_of

Api = Callable[..., APIClient]
MakeImage = Callable[..., CellImage]


@pytest.fixture
def lymphocyte(make_image: MakeImage, model_version: ModelVersion) -> CellImage:
    image = make_image("classified")
    prediction_of(image, model_version)
    return image


def test_api_says_that_an_image_is_void_and_why(lymphocyte: CellImage, reader: User, api: Api) -> None:
    url = f"/api/v1/images/{lymphocyte.pk}/"
    assert api(reader).get(url).json()["void"] is None

    services.void_image(actor=reader, image=lymphocyte, reason="wrong patient")

    assert api(reader).get(url).json()["void"]["reason"] == "wrong patient"


def test_differential_of_a_void_case_says_so_first(lymphocyte: CellImage, reader: User, api: Api) -> None:
    services.void_case(actor=reader, case=lymphocyte.case, reason="wrong patient")

    blocked_by = api(reader).get(f"/api/v1/cases/{lymphocyte.case_id}/differential/").json()["blocked_by"]
    assert blocked_by[0]["code"] == "case_void"


def test_void_images_are_not_counted_among_the_images_of_a_case(
    lymphocyte: CellImage, make_image: MakeImage, reader: User
) -> None:
    make_image("failed")
    services.void_image(actor=reader, image=lymphocyte, reason="wrong patient")

    counted: Any = Case.objects.with_counts().get(pk=lymphocyte.case_id)
    assert (counted.images_total, counted.images_failed) == (1, 1)


def test_draft_with_cells_that_nobody_has_read_is_not_called_reviewed(
    lymphocyte: CellImage, make_image: MakeImage, model_version: ModelVersion, technologist: User
) -> None:
    services.review_image(actor=technologist, image=lymphocyte, verdict="CONFIRMED")
    prediction_of(make_image("classified"), model_version, label="", abstained=True, reason="The model is not sure.")

    draft = draft_payload(lymphocyte.case)
    assert draft["differential"]["basis"] == "reviewed"
    assert draft["statement"] == "AI suggestion - not verified. For trained reviewers; not for diagnosis."


def test_count_of_erythroblasts_without_leukocytes_bears_no_code_of_a_rate(
    lymphocyte: CellImage, technologist: User, reader: User
) -> None:
    services.review_image(actor=technologist, image=lymphocyte, verdict="CORRECTED", final_label="erythroblast")
    report = services.release_report(actor=reader, case=lymphocyte.case, password=PASSWORD, reason="only nRBC")

    entries: list[Any] = [entry["resource"] for entry in fhir_bundle(shown_payload(report), Standing.CURRENT)["entry"]]
    (found,) = [each for each in entries if each.get("code", {}).get("text") == "Erythroblast"]
    assert found["valueInteger"] == 1
    assert "http://loinc.org" not in {coding["system"] for coding in found["code"]["coding"]}


def test_report_that_was_altered_is_handed_out_by_no_door(
    lymphocyte: CellImage, technologist: User, reader: User, api: Api, delete_triggers: None
) -> None:
    services.review_image(actor=technologist, image=lymphocyte, verdict="CONFIRMED")
    report = services.release_report(actor=reader, case=lymphocyte.case, password=PASSWORD, reason="one cell")
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("DROP TRIGGER classifier_report_never_changed")
        else:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("ALTER TABLE classifier_report DISABLE TRIGGER USER")
        cursor.execute("UPDATE classifier_report SET payload_json = replace(payload_json, 'lymphocyte', 'monocyte')")

    for door in ("", "pdf/", "fhir/", "csv/", "cells/"):
        answer = api(reader).get(f"/api/v1/reports/{report.pk}/{door}")
        assert (door, answer.status_code, answer.json()["code"]) == (door, 409, "report_altered")


def test_confirmation_names_the_class_that_was_seen_and_no_other_is_confirmed(
    lymphocyte: CellImage, reader: User
) -> None:
    with pytest.raises(Conflict, match="prediction_changed"):
        services.review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED", final_label="monocyte")
    services.review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED", final_label="lymphocyte")

    lymphocyte.refresh_from_db()
    assert lymphocyte.current_review is not None


def test_text_that_no_database_keeps_is_refused_with_a_sentence(lymphocyte: CellImage, reader: User) -> None:
    with pytest.raises(InvalidInput, match="unstorable_text"):
        services.review_image(actor=reader, image=lymphocyte, verdict="CONFIRMED", comment="a\x00b")
    with pytest.raises(InvalidInput, match="unstorable_text"):
        services.void_image(actor=reader, image=lymphocyte, reason="a\x00b")
