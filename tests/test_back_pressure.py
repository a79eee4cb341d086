"""Back-pressure: whoever sends more than can be taken is told when to come again, and people come first."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import User
from classifier import services, uploads
from classifier.errors import UploadRejected
from classifier.models import Batch, Case, CellImage
from classifier.services import room as rooms
from tests.pictures import jpeg_of_cell
from tests.zips import cells, zip_of

Api = Callable[..., APIClient]
MakeImage = Callable[..., CellImage]


@pytest.fixture(autouse=True)
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of the room that another test has found."""
    monkeypatch.setattr(rooms, "room", rooms.Room())


def picture(seed: int) -> dict[str, Any]:
    return {"file": SimpleUploadedFile("cell.jpg", jpeg_of_cell(seed, (96, 96)))}


def upload(client: APIClient, case: Case, seed: int) -> Any:
    return client.post(f"/api/v1/cases/{case.pk}/images/", picture(seed), format="multipart")


# --- A long queue ----------------------------------------------------------------------------------------------


@pytest.fixture
def full_queue(make_image: MakeImage, settings: Any) -> list[CellImage]:
    settings.QUEUE_LIMIT = 3
    return [make_image() for _ in range(3)]


def test_service_account_is_told_to_come_again_while_the_queue_is_full(
    api: Api, service_account: User, case: Case, full_queue: list[CellImage]
) -> None:
    client = api(service_account)

    refused = upload(client, case, 1)
    assert (refused.status_code, refused["Retry-After"], refused.json()["code"]) == (429, "30", "queue_full")
    archive = BytesIO(zip_of(cells(1)))
    archive.name = "cells.zip"
    refused = client.post("/api/v1/batches/", {"archive": archive}, format="multipart")
    assert (refused.status_code, refused["Retry-After"], refused.json()["code"]) == (429, "30", "queue_full")
    assert CellImage.objects.count() == len(full_queue)
    assert not Batch.objects.exists()

    full_queue[0].delete()
    assert upload(client, case, 1).status_code == 202


def test_people_are_taken_however_long_the_queue_is(
    api: Api, technologist: User, sign_in: Callable[[User], Client], case: Case, full_queue: list[CellImage]
) -> None:
    assert upload(api(technologist), case, 1).status_code == 202
    dropped = sign_in(technologist).post(reverse("upload-to-case", args=[case.pk]), picture(2))
    assert dropped.status_code == 202


def test_what_is_on_hold_or_done_fills_no_queue(
    api: Api, service_account: User, case: Case, make_image: MakeImage, settings: Any
) -> None:
    settings.QUEUE_LIMIT = 1
    make_image(on_hold=True)
    make_image("classified")

    assert upload(api(service_account), case, 1).status_code == 202


# --- Many at the same moment -----------------------------------------------------------------------------------


def test_picture_that_finds_no_place_is_sent_again_when_told(
    api: Api, technologist: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api(technologist)
    read: list[Any] = []
    monkeypatch.setattr(uploads, "read_capped", lambda file: read.append(file))
    taken = [uploads.upload_places.acquire(blocking=False) for _ in range(16)]
    assert all(taken)
    assert not uploads.upload_places.acquire(blocking=False)
    try:
        refused = upload(client, case, 1)
    finally:
        for _ in taken:
            uploads.upload_places.release()
    monkeypatch.undo()

    assert (refused.status_code, refused["Retry-After"], refused.json()["code"]) == (429, "2", "too_many_uploads")
    assert read == [], "not even read into memory"
    assert upload(client, case, 1).status_code == 202


def test_place_is_free_again_whatever_became_of_the_picture(technologist: User, case: Case) -> None:
    for number in range(20):
        bad = SimpleUploadedFile("cell.jpg", b"no picture %d" % number)
        with pytest.raises(UploadRejected):
            services.add_image(actor=technologist, case=case, upload=bad)
    image, new = services.add_image(
        actor=technologist, case=case, upload=SimpleUploadedFile("cell.jpg", jpeg_of_cell(1))
    )
    assert new
    assert image.status == "queued"
