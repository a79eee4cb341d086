"""Batches: checked file by file, each picture once, and the machine that does it."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.utils import timezone

from accounts.models import User
from classifier import batch_steps, pipeline, services, tasks
from classifier.batches import progress_of, refusals_of
from classifier.errors import Conflict, HematoVisionError
from classifier.models import (
    Batch,
    BatchMember,
    BatchState,
    Case,
    CellImage,
    ModelVersion,
    Prediction,
    Priority,
)
from classifier.services.batches import ClaimLost, move_on
from tests.factories import image_in_state
from tests.handing_in import check_all, checked, classify_all, submitted
from tests.zips import cells, zip_of

TEXT = b"this is not a picture"


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
