"""Batches: checked file by file, each picture once, in line with the others, and in a person's hand at every moment."""

import csv
import io
import logging
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import AuditEvent, User
from classifier import batch_steps, pipeline, services, tasks
from classifier.batches import progress_of, refusals_of, result_rows
from classifier.errors import Conflict, HematoVisionError, NotAllowed
from classifier.models import (
    Batch,
    BatchMember,
    BatchState,
    Case,
    CellImage,
    ModelVersion,
    Notification,
    Prediction,
    Priority,
    Void,
)
from classifier.services.batches import ClaimLost, keep_member, move_on
from tests.factories import image_in_state, prediction_of
from tests.zips import cells, zip_of

Api = Callable[..., APIClient]
SignIn = Callable[[User], Client]
TEXT = b"this is not a picture"


def submitted(actor: User, files: dict[str, bytes], **options: Any) -> Batch:
    archive = SimpleUploadedFile("cells.zip", zip_of(files))
    return services.submit_archive(actor=actor, archive=archive, **options)


def checked(actor: User, files: dict[str, bytes], **options: Any) -> Batch:
    batch = submitted(actor, files, **options)
    check_all()
    batch.refresh_from_db()
    return batch


def check_all() -> None:
    while Batch.objects.unchecked().exists():
        batch_steps.check_archives()


def classify_all() -> None:
    while pipeline.classify_queued():
        pass


def said_of(error: pytest.ExceptionInfo[HematoVisionError]) -> str:
    return error.value.code


# --- Checking ------------------------------------------------------------------------------------------------------
def test_every_picture_becomes_an_image_and_every_bad_file_is_named(technologist: User) -> None:
    good = cells(3)
    again = next(iter(good.values()))
    batch = checked(
        technologist,
        {
            **good,
            "again.jpg": again,
            "notes.txt": TEXT,
            "empty.jpg": b"",
            "../out.jpg": again,
            "inner.zip": b"PK",
            "__MACOSX/._a.jpg": b"x",
            ".DS_Store": b"x",
        },
    )
    assert batch.state == BatchState.RUNNING
    progress = progress_of([batch])[batch.pk]
    assert (progress.total, progress.queued, progress.refused, progress.duplicates) == (3, 3, 4, 1)
    assert [(refusal["file"], refusal["code"]) for refusal in refusals_of(batch)] == [
        ("notes.txt", "not_an_image"),
        ("empty.jpg", "empty_file"),
        ("../out.jpg", "unsafe_name"),
        ("inner.zip", "nested_archive"),
    ]
    assert all(refusal["message"].endswith(".") for refusal in refusals_of(batch))
    images = CellImage.objects.filter(batch=batch)
    assert {(image.priority, image.on_hold, image.case_id) for image in images} == {
        (Priority.BATCH, False, batch.case_id)
    }
    assert sorted(image.original_name for image in images) == sorted(good)


def test_archive_is_removed_once_it_is_checked(technologist: User) -> None:
    batch = submitted(technologist, cells(1))
    stored, name = batch.archive.storage, str(batch.archive.name)
    assert stored.exists(name)
    check_all()
    batch.refresh_from_db()
    assert not stored.exists(name)
    assert not batch.archive


def test_check_is_taken_in_slices_and_goes_on_where_it_stopped(technologist: User, monkeypatch: Any) -> None:
    moments = iter(range(1000))
    monkeypatch.setattr("classifier.batch_steps.time.monotonic", lambda: next(moments))
    monkeypatch.setattr(batch_steps, "SLICE_SECONDS", 2.5)
    batch = submitted(technologist, cells(5))
    seen = []
    while Batch.objects.unchecked().exists():
        batch_steps.check_archives()
        batch.refresh_from_db()
        seen.append(batch.members_checked)
    assert 0 < seen[0] < 5
    assert seen == sorted(set(seen))
    assert CellImage.objects.filter(batch=batch).count() == 5


def test_check_that_died_at_any_file_is_taken_up_again_and_doubles_nothing(
    technologist: User, monkeypatch: Any
) -> None:
    """The worker dies while it writes the third file: what it had begun is rolled back, and done again."""
    batch = submitted(technologist, cells(5))
    written = BatchMember.save
    dying = [True]

    def save(self: BatchMember, **options: Any) -> None:
        written(self, **options)
        if self.number == 2 and dying:
            dying.clear()
            raise KeyboardInterrupt

    monkeypatch.setattr(BatchMember, "save", save)
    with pytest.raises(KeyboardInterrupt):
        batch_steps.check_archives()
    batch.refresh_from_db()
    assert (batch.members_checked, BatchMember.objects.count(), CellImage.objects.count()) == (2, 2, 2)
    Batch.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    check_all()
    batch.refresh_from_db()
    assert [member.number for member in batch.members.all()] == [0, 1, 2, 3, 4]
    assert CellImage.objects.filter(batch=batch).count() == 5


def test_file_that_kills_the_worker_three_times_is_left_out(technologist: User) -> None:
    batch = submitted(technologist, cells(3))
    for _ in range(3):
        assert batch_steps.claim_check() is not None
        assert batch_steps.claim_check() is None, "nobody else may hold it"
        Batch.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    check_all()
    assert [(refusal["file"], refusal["code"]) for refusal in refusals_of(batch)] == [("cell-0000.jpg", "check_failed")]
    assert CellImage.objects.filter(batch=batch).count() == 2


def test_worker_that_lost_its_claim_writes_nothing(technologist: User) -> None:
    batch = submitted(technologist, cells(2))
    late = batch_steps.claim_check()
    assert late is not None
    Batch.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    check_all()
    with pytest.raises(ClaimLost):
        move_on(late, 0)
    assert CellImage.objects.filter(batch=batch).count() == 2


def test_nothing_is_checked_while_a_person_waits(technologist: User, case: Case) -> None:
    image = image_in_state("queued", case=case, uploaded_by=technologist)
    batch = submitted(technologist, cells(2))
    assert batch_steps.check_archives(classified=1) == 0
    CellImage.objects.filter(pk=image.pk).update(status="classified")
    assert batch_steps.check_archives(classified=1) == 2
    batch.refresh_from_db()
    assert batch.checked_at


def test_archive_is_checked_also_while_no_model_can_be_used(technologist: User, case: Case, monkeypatch: Any) -> None:
    image_in_state("queued", case=case, uploaded_by=technologist)
    batch = submitted(technologist, cells(2))
    sent: list[int] = []
    monkeypatch.setattr(batch_steps, "send_wake_up", lambda: sent.append(1))
    monkeypatch.setattr(batch_steps, "SLICE_SECONDS", -1.0)
    tasks.classify_queued()
    assert sent == [1], "the chain of wake-ups must not end with the first slice"
    batch.refresh_from_db()
    assert batch.members_checked == 1, "however slow the machine, each slice brings it on"
    tasks.classify_queued()
    batch.refresh_from_db()
    assert batch.checked_at
    assert CellImage.objects.waiting().count() == 3


def test_picture_that_the_case_has_already_is_counted_and_not_doubled(technologist: User, case: Case) -> None:
    files = cells(2)
    services.add_image(actor=technologist, case=case, upload=SimpleUploadedFile("a.jpg", next(iter(files.values()))))
    CellImage.objects.update(status="failed", failure_code="prediction_failed")
    batch = checked(technologist, files, accession_number="a-1001")
    assert batch.case == case
    progress = progress_of([batch])[batch.pk]
    assert (progress.total, progress.duplicates) == (1, 1)
    assert CellImage.objects.count() == 2


def test_case_that_is_released_meanwhile_takes_nothing_more(technologist: User) -> None:
    batch = submitted(technologist, cells(2))
    Case.objects.filter(pk=batch.case_id).update(status="released")
    check_all()
    assert {refusal["code"] for refusal in refusals_of(batch)} == {"case_released"}
    batch.refresh_from_db()
    assert batch.state == BatchState.FINISHED


@pytest.mark.django_db(transaction=True)
def test_two_workers_check_one_archive_without_doubling_anything(technologist: User, monkeypatch: Any) -> None:
    monkeypatch.setattr(batch_steps, "SLICE_SECONDS", 0.05)
    batch = submitted(technologist, cells(30))

    def work() -> None:
        try:
            while Batch.objects.filter(checked_at=None).exists():
                batch_steps.check_archives()
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert CellImage.objects.filter(batch=batch).count() == 30
    assert list(batch.members.values_list("number", flat=True)) == list(range(30))


@pytest.mark.parametrize(
    ("archive", "code"),
    [
        (None, "no_archive"),
        (b"no zip", "not_an_archive"),
        (zip_of({"a.bmp": bytes(2_000_000)}), "archive_ratio"),
    ],
)
def test_archive_that_is_of_no_use_is_refused_at_once_and_leaves_nothing(
    technologist: User, archive: bytes | None, code: str, settings: Any
) -> None:
    upload = None if archive is None else SimpleUploadedFile("a.zip", archive)
    with pytest.raises(HematoVisionError) as caught:
        services.submit_archive(actor=technologist, archive=upload, accession_number="B-7")
    assert said_of(caught) == code
    assert not Batch.objects.exists()
    assert not Case.objects.exists()
    assert not list(settings.MEDIA_ROOT.rglob("*.zip"))


def test_archive_for_a_released_case_is_refused_and_leaves_no_file(
    technologist: User, case: Case, settings: Any
) -> None:
    Case.objects.update(status="released")
    with pytest.raises(Conflict) as caught:
        submitted(technologist, cells(1), accession_number=case.accession_number)
    assert said_of(caught) == "case_released"
    assert not list(settings.MEDIA_ROOT.rglob("*.zip"))


def test_archive_whose_file_is_gone_ends_with_a_reason(technologist: User) -> None:
    batch = submitted(technologist, cells(1))
    batch.archive.storage.delete(str(batch.archive.name))
    check_all()
    batch.refresh_from_db()
    assert batch.state == BatchState.FINISHED
    assert [refusal["code"] for refusal in refusals_of(batch)] == ["archive_missing"]


# --- The line ------------------------------------------------------------------------------------------------------
def test_batches_share_in_turn_and_people_go_first(technologist: User, case: Case) -> None:
    first = checked(technologist, cells(6))
    second = checked(technologist, cells(3, first=100))
    person = image_in_state("queued", case=case, uploaded_by=technologist)
    line = [image.batch_id or "person" for image in CellImage.objects.claimable()]
    one, two = first.pk, second.pk
    assert line == ["person", one, two, one, two, one, two, one, one, one]
    assert CellImage.objects.claimable().first() == person


def test_batch_that_comes_later_does_not_wait_behind_a_long_one(technologist: User) -> None:
    first = checked(technologist, cells(8))
    done = CellImage.objects.claimable().values_list("pk", flat=True)[:5]
    CellImage.objects.filter(pk__in=list(done)).update(status="classified")
    second = checked(technologist, cells(2, first=50))
    line = [image.batch_id for image in CellImage.objects.claimable()]
    assert line == [first.pk, second.pk, first.pk, second.pk, first.pk]


def test_paused_batch_joins_the_line_anew_when_it_is_resumed(technologist: User) -> None:
    first = checked(technologist, cells(4))
    services.pause_batch(actor=technologist, batch=first)
    assert not CellImage.objects.claimable().exists()
    second = checked(technologist, cells(4, first=50))
    done = CellImage.objects.claimable().values_list("pk", flat=True)[:2]
    CellImage.objects.filter(pk__in=list(done)).update(status="classified")
    services.resume_batch(actor=technologist, batch=first)
    line = [image.batch_id for image in CellImage.objects.claimable()]
    assert sorted(line[:2], key=str) == sorted([first.pk, second.pk], key=str)
    assert sorted(line[2:4], key=str) == sorted([first.pk, second.pk], key=str)


# --- A person's hand -----------------------------------------------------------------------------------------------
def test_batch_of_the_page_waits_until_somebody_starts_it(technologist: User, model_version: ModelVersion) -> None:
    batch = checked(technologist, {**cells(2), "a.txt": TEXT}, asks_before_start=True)
    assert (batch.state, batch.waits_for_start) == (BatchState.CHECKING, True)
    assert pipeline.classify_queued() == 0
    services.start_batch(actor=technologist, batch=batch)
    classify_all()
    batch.refresh_from_db()
    assert batch.state == BatchState.FINISHED
    assert progress_of([batch])[batch.pk].classified == 2


def test_batch_of_refusals_alone_asks_nobody(technologist: User) -> None:
    batch = checked(technologist, {"a.txt": TEXT}, asks_before_start=True)
    assert batch.state == BatchState.FINISHED


def test_paused_batch_is_not_classified_not_even_what_comes_back_from_a_worker(
    technologist: User, model_version: ModelVersion
) -> None:
    batch = checked(technologist, cells(4))
    claim = pipeline.claim_batch(2)
    services.pause_batch(actor=technologist, batch=batch)
    pipeline.give_back(claim)
    assert pipeline.classify_queued() == 0
    assert CellImage.objects.queue_state().waiting == 0
    services.resume_batch(actor=technologist, batch=batch)
    classify_all()
    assert progress_of([batch])[batch.pk].classified == 4


def test_cancelled_batch_keeps_what_is_classified_and_voids_what_waits(
    technologist: User, model_version: ModelVersion
) -> None:
    batch = checked(technologist, cells(5))
    pipeline.classify_batch(pipeline.claim_batch(2), pipeline.load_model())
    held = pipeline.claim_batch(1)
    services.cancel_batch(actor=technologist, batch=batch)
    batch.refresh_from_db()
    assert batch.state == BatchState.CANCELLED
    assert set(Void.objects.values_list("reason", flat=True)) == {"batch cancelled"}
    assert Void.objects.count() == 2
    pipeline.give_back(held)
    assert pipeline.classify_queued() == 0
    batch_steps.sweep_batches()
    progress = progress_of([batch])[batch.pk]
    assert (progress.total, progress.classified, progress.queued, progress.void) == (5, 2, 0, 3)
    assert progress.seconds_left == 0
    assert not CellImage.objects.claimable().exists()
    assert not Notification.objects.filter(kind="batch_finished").exists()


def test_batch_that_is_cancelled_while_it_is_checked_stops_and_loses_its_archive(
    technologist: User, settings: Any
) -> None:
    batch = submitted(technologist, cells(3))
    held = batch_steps.claim_check()
    assert held is not None
    keep_member(held, 0, "a.jpg", lambda: cells(1)["cell-0000.jpg"])
    services.cancel_batch(actor=technologist, batch=batch)
    with pytest.raises(ClaimLost):
        batch_steps.check(held)
    assert CellImage.objects.get().is_void
    batch_steps.sweep_batches()
    assert not list(settings.MEDIA_ROOT.rglob("*.zip"))
    assert not Batch.objects.unchecked().exists()


def test_failed_images_are_tried_again_and_the_batch_ends_once_more(
    technologist: User, model_version: ModelVersion
) -> None:
    batch = checked(technologist, cells(3))
    failing = CellImage.objects.filter(batch=batch).order_by("turn")[1:].values_list("pk", flat=True)
    CellImage.objects.filter(pk__in=list(failing)).update(
        status="failed", failure_code="prediction_failed", faults=3, attempts=3
    )
    classify_all()
    batch.refresh_from_db()
    assert (batch.state, progress_of([batch])[batch.pk].failed) == (BatchState.FINISHED, 2)
    services.retry_failed(actor=technologist, batch=batch)
    batch.refresh_from_db()
    assert batch.state == BatchState.RUNNING
    classify_all()
    batch.refresh_from_db()
    assert (batch.state, progress_of([batch])[batch.pk].classified) == (BatchState.FINISHED, 3)
    with pytest.raises(Conflict) as caught:
        services.retry_failed(actor=technologist, batch=batch)
    assert said_of(caught) == "nothing_to_retry"


ALL_ACTS = {
    "start": services.start_batch,
    "pause": services.pause_batch,
    "resume": services.resume_batch,
    "cancel": services.cancel_batch,
    "retry-failed": services.retry_failed,
}
ALLOWED = {
    "checking": {"cancel"},
    "waiting": {"start", "cancel"},
    "running": {"pause", "cancel"},
    "paused": {"resume", "cancel"},
    "cancelled": set(),
    "finished": set(),
}


@pytest.mark.parametrize("state", ALLOWED)
@pytest.mark.parametrize("act", ALL_ACTS)
def test_what_does_not_fit_the_state_is_a_conflict(technologist: User, api: Api, state: str, act: str) -> None:
    """`retry-failed` is a conflict everywhere here, because nothing has failed."""
    batch = submitted(technologist, cells(1), asks_before_start=state == "waiting")
    if state != "checking":
        check_all()
    now = timezone.now()
    stamps = {"paused": "paused_at", "cancelled": "cancelled_at", "finished": "finished_at"}
    if state in stamps:
        Batch.objects.update(**{stamps[state]: now})
    client = api(technologist)
    audited = AuditEvent.objects.count()
    answer = client.post(f"/api/v1/batches/{batch.pk}/{act}/")
    if act in ALLOWED[state]:
        assert answer.status_code == 200
        assert AuditEvent.objects.count() == audited + 1
    else:
        assert answer.status_code == 409
        assert answer.json()["detail"].endswith(".")
        assert AuditEvent.objects.count() == audited


def test_every_act_is_in_the_audit_trail_without_patient_text(technologist: User, model_version: ModelVersion) -> None:
    batch = checked(technologist, cells(2, folder="Mrs Miller/"), accession_number="SECRET-1", asks_before_start=True)
    services.start_batch(actor=technologist, batch=batch)
    services.pause_batch(actor=technologist, batch=batch)
    services.resume_batch(actor=technologist, batch=batch)
    classify_all()
    services.record_batch_export(actor=technologist, batch=batch, kind="results")
    events = AuditEvent.objects.filter(target_id=str(batch.pk)).order_by("at", "id")
    assert [event.action for event in events] == [
        "batch_submitted",
        "batch_started",
        "batch_paused",
        "batch_resumed",
        "batch_finished",
        "batch_exported",
    ]
    written = " ".join(str(event.facts) for event in AuditEvent.objects.all())
    assert "SECRET" not in written
    assert "Miller" not in written


def test_submitter_is_told_once_when_the_batch_is_finished(technologist: User, model_version: ModelVersion) -> None:
    batch = checked(technologist, cells(12))
    classify_all()
    batch_steps.finish_batches()
    kinds = list(Notification.objects.filter(user=technologist).values_list("kind", flat=True))
    assert kinds == ["batch_finished"]
    assert Notification.objects.get().case == batch.case


# --- The machine ---------------------------------------------------------------------------------------------------
def test_task_classifies_and_checks_in_turn_and_ends_everything(
    technologist: User, model_version: ModelVersion, monkeypatch: Any
) -> None:
    batch = submitted(technologist, cells(20))
    other = submitted(technologist, cells(20, first=200))
    sent: list[int] = []
    for module in (pipeline, batch_steps):
        monkeypatch.setattr(module, "send_wake_up", lambda: sent.append(1))
    monkeypatch.setattr("classifier.services.batches.wake_workers", lambda: sent.append(1))
    monkeypatch.setattr("classifier.services.images.wake_workers", lambda: pytest.fail("on hold: nothing to wake for"))
    messages, rounds = 1, 0
    while messages:
        sent.clear()
        tasks.classify_queued()
        messages += len(sent) - 1
        rounds += 1
        assert messages <= 4, "wake-ups must not multiply"
        assert rounds < 100
    for each in (batch, other):
        each.refresh_from_db()
        assert each.state == BatchState.FINISHED
    assert Prediction.objects.count() == 40


def test_folder_that_nobody_adds_to_any_longer_is_closed_by_the_sweep(
    technologist: User, model_version: ModelVersion
) -> None:
    batch = services.open_folder_batch(actor=technologist, accession_number="F-1", files=3)
    content = cells(1)["cell-0000.jpg"]
    services.add_to_batch(actor=technologist, batch=batch, number=0, name="a.jpg", read=lambda: content)
    classify_all()
    batch_steps.sweep_batches()
    batch.refresh_from_db()
    assert batch.state == BatchState.RUNNING, "the one who adds is still there"
    Batch.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    batch_steps.sweep_batches()
    assert Batch.objects.get().state == BatchState.FINISHED


def test_rate_and_time_left_come_from_the_rows(technologist: User) -> None:
    batch = checked(technologist, cells(6))
    images = list(CellImage.objects.filter(batch=batch).order_by("turn"))
    assert progress_of([batch])[batch.pk].images_per_second is None
    for seconds, image in zip((8, 6, 4), images, strict=False):
        CellImage.objects.filter(pk=image.pk).update(
            status="classified", classified_at=timezone.now() - timedelta(seconds=seconds)
        )
    progress = progress_of([batch])[batch.pk]
    assert progress.images_per_second == pytest.approx(3 / 8, abs=0.03)
    assert progress.seconds_left in (8, 9)


def test_page_of_batches_costs_two_queries_however_many(technologist: User, django_assert_num_queries: Any) -> None:
    batches = [checked(technologist, cells(1, first=10 * number)) for number in range(4)]
    with django_assert_num_queries(2):
        assert len(progress_of(batches)) == 4


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
