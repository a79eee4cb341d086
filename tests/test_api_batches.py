"""Batches over the API."""

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from accounts.models import User
from classifier.errors import NotAllowed
from classifier.models import (
    Case,
    ModelVersion,
    Prediction,
)
from tests.handing_in import check_all, checked, classify_all, submitted
from tests.zips import cells, zip_of

Api = Callable[..., APIClient]
TEXT = b"this is not a picture"


# --- The API -------------------------------------------------------------------------------------------------------
def test_client_hands_in_a_batch_and_follows_it_to_its_results(
    service_account: User, api: Api, model_version: ModelVersion
) -> None:
    client = api(service_account)
    archive = SimpleUploadedFile("cells.zip", zip_of({**cells(3), "=evil.txt": TEXT}))
    answer = client.post("/api/v1/batches/", {"archive": archive, "accession_number": "B-1"}, format="multipart")
    assert answer.status_code == 202
    body = answer.json()
    assert set(body) == {"id", "state", "url"}
    assert (body["state"], body["url"]) == ("checking", answer["Location"])
    check_all()
    detail = client.get(body["url"]).json()
    assert {key: detail[key] for key in ("state", "total", "queued", "classified", "failed")} == {
        "state": "running",
        "total": 3,
        "queued": 3,
        "classified": 0,
        "failed": 0,
    }
    [refused] = detail["refused"]
    assert set(refused) == {"file", "code", "message"}
    assert (refused["file"], refused["code"]) == ("=evil.txt", "not_an_image")
    classify_all()
    detail = client.get(body["url"]).json()
    assert (detail["state"], detail["classified"], detail["seconds_left"]) == ("finished", 3, 0)
    assert detail["images_per_second"] > 0
    assert detail["validation"] is None

    results = client.get(f"{body['url']}results.csv")
    assert results["Content-Type"] == "text/csv"
    text = results.getvalue().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["file"] for row in rows] == ["cell-0000.jpg", "cell-0001.jpg", "cell-0002.jpg", "'=evil.txt"]
    assert {row["status"] for row in rows[:3]} == {"classified"}
    assert (rows[3]["status"], rows[3]["code"]) == ("refused", "not_an_image")
    predictions = {str(row.image_id): row for row in Prediction.objects.all()}
    for row in rows[:3]:
        prediction = predictions[row["image_id"]]
        assert row["label"] == prediction.label
        assert float(row["confidence"]) == pytest.approx(prediction.confidence)


def test_list_of_batches_is_thin_and_in_a_fixed_number_of_queries(
    technologist: User, api: Api, django_assert_max_num_queries: Any
) -> None:
    for number in range(3):
        checked(technologist, {**cells(1, first=10 * number), "a.txt": TEXT})
    client = api(technologist)
    client.get("/api/v1/batches/")
    with django_assert_max_num_queries(7):
        body = client.get("/api/v1/batches/").json()
    assert len(body["results"]) == 3
    assert "refused" not in body["results"][0]
    assert body["results"][0]["total"] == 1


@pytest.mark.parametrize("path", ["", "pause/", "resume/", "cancel/", "retry-failed/", "start/", "results.csv"])
def test_stranger_gets_404_for_a_batch_of_another_laboratory(
    technologist: User, stranger: User, api: Api, path: str
) -> None:
    batch = checked(technologist, cells(1))
    url = f"/api/v1/batches/{batch.pk}/{path}"
    method = "get" if path in ("", "results.csv") else "post"
    answer = getattr(api(stranger), method)(url)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert getattr(api(None), method)(url).status_code == 401


@pytest.mark.parametrize("path", ["pause/", "cancel/", "retry-failed/", "start/", "resume/"])
def test_auditor_sees_batches_and_changes_none(technologist: User, auditor: User, api: Api, path: str) -> None:
    batch = checked(technologist, cells(1))
    client = api(auditor)
    assert client.get(f"/api/v1/batches/{batch.pk}/").status_code == 200
    assert client.post(f"/api/v1/batches/{batch.pk}/{path}").status_code == 403
    archive = SimpleUploadedFile("cells.zip", zip_of(cells(1)))
    assert client.post("/api/v1/batches/", {"archive": archive}, format="multipart").status_code == 403
    with pytest.raises(NotAllowed):
        submitted(auditor, cells(1))


def test_archive_larger_than_a_picture_is_taken_only_where_batches_are_handed_in(
    technologist: User, api: Api, case: Case, settings: Any
) -> None:
    settings.MAX_IMAGE_BYTES = 30_000
    content = zip_of(cells(40), method=0)
    assert len(content) > 2 * settings.MAX_IMAGE_BYTES
    client = api(technologist)
    upload = SimpleUploadedFile("a.zip", content)
    answer = client.post("/api/v1/batches/", {"archive": upload}, format="multipart")
    assert answer.status_code == 202, answer.json()
    as_picture = SimpleUploadedFile("a.jpg", content)
    answer = client.post(f"/api/v1/cases/{case.pk}/images/", {"file": as_picture}, format="multipart")
    assert answer.json()["code"] == "file_too_large"
    settings.MAX_ARCHIVE_BYTES = 70_000
    upload = SimpleUploadedFile("a.zip", content)
    answer = client.post("/api/v1/batches/", {"archive": upload}, format="multipart")
    assert (answer.status_code, answer.json()["code"]) == (413, "archive_too_large")


def test_batches_are_narrowed_by_case_and_an_unknown_filter_is_refused(technologist: User, api: Api) -> None:
    first = checked(technologist, cells(1), accession_number="F-1")
    checked(technologist, cells(1), accession_number="F-2")
    client = api(technologist)
    found = client.get("/api/v1/batches/", {"case": str(first.case_id), "page_size": "1"}).json()
    assert [row["id"] for row in found["results"]] == [str(first.pk)]
    assert found["next"] is None
    assert len(client.get("/api/v1/batches/").json()["results"]) == 2
    for query, code in (("state=running", "unknown_filter"), ("case=F-1", "invalid_input")):
        answer = client.get(f"/api/v1/batches/?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, code)
