"""The pages of batches, and what leaves them as CSV."""

import csv
import io
import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import AuditEvent, User
from classifier import pipeline, services, tasks
from classifier.batches import result_rows
from classifier.models import (
    Batch,
    BatchState,
    Case,
    CellImage,
    ModelVersion,
    Notification,
    NotificationKind,
)
from classifier.services.notifications import notify
from tests.factories import prediction_of
from tests.handing_in import check_all, checked, classify_all
from tests.zips import cells, zip_of

SignIn = Callable[[User], Client]
TEXT = b"this is not a picture"


# --- The pages -----------------------------------------------------------------------------------------------------
def test_page_asks_before_it_starts_and_shows_what_was_refused_first(
    technologist: User, sign_in: SignIn, model_version: ModelVersion
) -> None:
    client = sign_in(technologist)
    archive = SimpleUploadedFile("cells.zip", zip_of({**cells(2), "a.txt": TEXT}))
    answer = client.post("/batches/", {"archive": archive, "accession_number": "P-1"})
    batch = Batch.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/batches/{batch.pk}/")
    check_all()
    page = client.get(answer["Location"]).content.decode()
    assert "a.txt" in page
    assert "Start" in page
    assert pipeline.classify_queued() == 0
    answer = client.post(reverse("batch-act", args=[batch.pk, "start"]), follow=True)
    assert "The batch is started." in answer.content.decode()
    classify_all()
    page = client.get(f"/batches/{batch.pk}/").content.decode()
    assert "Finished" in page


def test_page_says_in_a_sentence_what_is_wrong_with_an_archive(technologist: User, sign_in: SignIn) -> None:
    client = sign_in(technologist)
    answer = client.post("/batches/", {"archive": SimpleUploadedFile("a.zip", b"nothing")})
    assert answer.status_code == 400
    assert "This is not a ZIP archive" in answer.content.decode()
    answer = client.post("/batches/", {}, headers={"X-Fragment": "1"})
    assert (answer.status_code, answer["Content-Type"]) == (400, "text/plain")


def test_pages_of_batches_cost_a_fixed_number_of_queries(
    technologist: User, sign_in: SignIn, django_assert_max_num_queries: Any
) -> None:
    batches = [checked(technologist, {**cells(2, first=10 * number), "a.txt": TEXT}) for number in range(5)]
    client = sign_in(technologist)
    client.get("/batches/")
    with django_assert_max_num_queries(7):
        client.get("/batches/")
    with django_assert_max_num_queries(9):
        client.get(f"/batches/{batches[0].pk}/")


@pytest.mark.parametrize("path", ["", "results.csv", "refused.csv", "pause/", "cancel/"])
def test_stranger_gets_404_for_the_pages_of_a_batch(
    technologist: User, stranger: User, sign_in: SignIn, path: str
) -> None:
    batch = checked(technologist, {**cells(1), "a.txt": TEXT})
    url = f"/batches/{batch.pk}/{path}"
    client = sign_in(stranger)
    answer = client.post(url) if path in ("pause/", "cancel/") else client.get(url)
    assert answer.status_code == 404
    assert sign_in(technologist).get(f"/batches/{uuid.uuid4()}/").status_code == 404


def test_act_that_comes_too_late_is_said_on_the_page(technologist: User, sign_in: SignIn) -> None:
    batch = checked(technologist, cells(1))
    Batch.objects.update(finished_at=timezone.now())
    answer = sign_in(technologist).post(f"/batches/{batch.pk}/pause/", follow=True)
    assert "Only a running batch can be paused" in answer.content.decode()


def test_link_to_an_act_leads_to_the_batch_and_unknown_acts_are_404(technologist: User, sign_in: SignIn) -> None:
    batch = checked(technologist, cells(1))
    client = sign_in(technologist)
    answer = client.get(f"/batches/{batch.pk}/cancel/")
    assert (answer.status_code, answer["Location"]) == (302, f"/batches/{batch.pk}/")
    assert client.post(f"/batches/{batch.pk}/explode/").status_code == 404
    assert client.get(f"/batches/{batch.pk}/everything.csv").status_code == 404
    assert Batch.objects.get().state == BatchState.RUNNING


def test_names_of_files_reach_no_log(
    technologist: User, sign_in: SignIn, model_version: ModelVersion, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    planted = "PLANTED-7731"
    labels = f"{planted}.jpg,{planted}\n"
    files = {f"{planted}/a.jpg": cells(1)["cell-0000.jpg"], f"{planted}.txt": TEXT, "labels.csv": labels.encode()}
    archive = SimpleUploadedFile(f"{planted}.zip", zip_of(files))
    client = sign_in(technologist)
    client.post("/batches/", {"archive": archive, "accession_number": planted})
    client.post("/batches/", {"archive": SimpleUploadedFile(f"{planted}.zip", b"x"), "accession_number": planted})
    tasks.classify_queued()
    page = client.get(f"/batches/{Batch.objects.get().pk}/").content.decode()
    assert planted in page
    assert planted not in caplog.text
    assert planted not in "".join(str(record.__dict__) for record in caplog.records)
    assert planted not in str(list(AuditEvent.objects.values()))


def test_refused_files_come_as_csv_without_formulas(technologist: User, sign_in: SignIn) -> None:
    batch = checked(technologist, {"=1+1.txt": TEXT, "@a.txt": TEXT + b"2"})
    answer = sign_in(technologist).get(f"/batches/{batch.pk}/refused.csv")
    text = answer.getvalue().decode("utf-8-sig")
    assert [row["file"] for row in csv.DictReader(io.StringIO(text))] == ["'=1+1.txt", "'@a.txt"]


def test_results_of_a_reviewed_void_or_failed_image_say_so(
    technologist: User, reader: User, model_version: ModelVersion
) -> None:
    batch = checked(technologist, cells(4))
    images = list(CellImage.objects.filter(batch=batch).order_by("turn"))
    CellImage.objects.update(status="classified", classified_at=timezone.now())
    for image in images:
        prediction_of(image, model_version)
        image.refresh_from_db()
    services.review_image(actor=reader, image=images[0], verdict="CORRECTED", final_label="monocyte")
    services.void_image(actor=reader, image=images[1], reason="wrong slide")
    CellImage.objects.filter(pk=images[2].pk).update(status="failed", failure_code="prediction_failed")
    rows = list(result_rows(batch))
    assert [row["status"] for row in rows] == ["reviewed", "void", "failed", "classified"]
    assert (rows[0]["label"], rows[0]["final_label"], rows[0]["verdict"]) == ("lymphocyte", "monocyte", "CORRECTED")
    assert (rows[2]["code"], "label" in rows[2]) == ("prediction_failed", False)


@pytest.mark.django_db(transaction=True)
def test_retry_never_touches_an_image_that_somebody_reads_meanwhile(technologist: User, reader: User) -> None:
    """Two connections: the review commits while the retry waits for the row."""
    batch = checked(technologist, cells(2))
    CellImage.objects.update(status="failed", failure_code="prediction_failed", faults=3, attempts=3)
    image = CellImage.objects.order_by("turn").first()
    assert image is not None
    done: list[str] = []

    def retry() -> None:
        try:
            services.retry_failed(actor=technologist, batch=batch)
            done.append("retried")
        finally:
            connection.close()

    with transaction.atomic():
        services.review_image(actor=reader, image=image, verdict="MANUAL", final_label="monocyte")
        thread = threading.Thread(target=retry)
        thread.start()
        thread.join(0.5)
        assert not done, "it waits for the row"
    thread.join(20)
    assert done == ["retried"]
    assert sorted(CellImage.objects.values_list("status", flat=True)) == ["queued", "reviewed"]


# --- The batches of one case ---------------------------------------------------------------------------------------
def test_case_leads_to_its_batches_and_back(technologist: User, sign_in: SignIn) -> None:
    first = checked(technologist, cells(1), accession_number="B-1")
    second = checked(technologist, cells(1, first=5), accession_number="B-1")
    other = checked(technologist, cells(1), accession_number="B-2")
    client = sign_in(technologist)
    link = f"{reverse('batches')}?case={first.case_id}"
    page = client.get(f"/cases/{first.case_id}/").content.decode()
    assert f'<dt>Batches</dt><dd class="num"><a href="{link}">2 handed in</a>' in page
    page = client.get(link).content.decode()
    assert "Batches of case" in page
    assert 'value="B-1"' in page, "what is handed in here is for this case"
    assert reverse("case", args=[first.case_id]) in page
    for batch in (first, second):
        assert f"/batches/{batch.pk}/" in page
    assert f"/batches/{other.pk}/" not in page


def test_case_without_a_batch_names_none(technologist: User, case: Case, sign_in: SignIn) -> None:
    client = sign_in(technologist)
    assert "<dt>Batches</dt>" not in client.get(f"/cases/{case.pk}/").content.decode()
    assert "No batch was handed in for this case." in client.get(f"/batches/?case={case.pk}").content.decode()


@pytest.mark.parametrize("who", ["technologist", "stranger"])
def test_batches_of_a_case_that_is_not_there_are_a_404(
    case: Case, sign_in: SignIn, who: str, request: pytest.FixtureRequest
) -> None:
    client = sign_in(request.getfixturevalue(who))
    wanted = case.pk if who == "stranger" else uuid.uuid4()
    assert client.get(f"/batches/?case={wanted}").status_code == 404
    assert client.get("/batches/?case=B-1").status_code == 404


def test_notice_of_a_finished_batch_leads_to_the_batch(technologist: User, sign_in: SignIn) -> None:
    first = checked(technologist, cells(1), accession_number="B-1")
    notify(user=technologist, kind=NotificationKind.BATCH_FINISHED, case=first.case)
    url = reverse("notification-open", args=[Notification.objects.get().pk])
    client = sign_in(technologist)
    assert client.get(url)["Location"] == reverse("batch", args=[first.pk])
    checked(technologist, cells(1, first=5), accession_number="B-1")
    assert client.get(url)["Location"] == f"/batches/?case={first.case_id}"
