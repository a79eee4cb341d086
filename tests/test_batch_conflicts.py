"""Batches that get into each other's way, or into a person's: nothing is lost, blocked or classified unasked."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import AuditEvent, User
from classifier import archives, batch_steps, pipeline, services
from classifier.batches import progress_of, refusals_of
from classifier.errors import Conflict, Unavailable
from classifier.models import Batch, BatchState, Case, CellImage, ModelVersion, Priority, Void
from tests.factories import prediction_of
from tests.handing_in import check_all, checked, submitted
from tests.pictures import jpeg_of_cell
from tests.zips import cells

pytestmark = pytest.mark.django_db


def hand_in(actor: User, case: Case, content: bytes) -> tuple[CellImage, bool]:
    return services.add_image(actor=actor, case=case, upload=SimpleUploadedFile("a.jpg", content))


def expire_claims() -> None:
    Batch.objects.exclude(claim_token=None).update(claim_expires_at=timezone.now() - timedelta(seconds=1))


# --- Faults --------------------------------------------------------------------------------------------------------
def test_archive_whose_check_breaks_again_and_again_is_refused_and_blocks_no_other(
    technologist: User, monkeypatch: Any
) -> None:
    bad = submitted(technologist, cells(1))
    good = submitted(technologist, cells(1, first=5))
    real = archives.labels_of

    def labels_of(archive: Any) -> archives.Labels:
        if archive.fp.name.endswith(f"{bad.pk}.zip"):
            raise ZeroDivisionError
        return real(archive)

    monkeypatch.setattr(archives, "labels_of", labels_of)
    woken: list[int] = []
    monkeypatch.setattr(batch_steps, "send_wake_up", lambda: woken.append(1))
    with pytest.raises(ZeroDivisionError):
        batch_steps.check_archives()
    assert woken == [1], "the other archive must not wait for the sweep"
    assert batch_steps.check_archives() == 1, "the other one goes on"
    for faults in (1, 2, 3):
        expire_claims()
        with pytest.raises(ZeroDivisionError):
            batch_steps.check_archives()
        bad.refresh_from_db()
        assert bad.check_faults == faults, "each fault counts once"
    expire_claims()
    check_all()
    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.state, bad.refused_code) == (BatchState.FINISHED, "check_failed")
    assert [refusal["code"] for refusal in refusals_of(bad)] == ["check_failed"]
    assert good.state == BatchState.RUNNING


def test_many_complaints_about_labels_are_written_in_portions(technologist: User) -> None:
    lines = "".join(f"gone-{number}.jpg,monocyte\n" for number in range(1200))
    batch = submitted(technologist, {**cells(1), "labels.csv": lines.encode()})
    with CaptureQueriesContext(connection) as queries:
        check_all()
    assert batch.members.filter(code="label_without_file").count() == 1200
    written = [query for query in queries if query["sql"].startswith('INSERT INTO "classifier_batchmember"')]
    assert len(written) >= 1 + 3, "the picture, and three portions"


# --- On hold -------------------------------------------------------------------------------------------------------
def test_picture_that_is_added_to_a_paused_folder_waits_with_the_others(technologist: User) -> None:
    batch = services.open_folder_batch(actor=technologist, accession_number="F-1", files=2)
    first, second = cells(2).values()
    services.add_to_batch(actor=technologist, batch=batch, number=0, name="a.jpg", read=lambda: first)
    services.pause_batch(actor=technologist, batch=batch)
    services.add_to_batch(actor=technologist, batch=batch, number=1, name="b.jpg", read=lambda: second)
    assert CellImage.objects.filter(batch=batch).count() == 2
    assert not CellImage.objects.claimable().exists()
    services.resume_batch(actor=technologist, batch=batch)
    assert CellImage.objects.claimable().count() == 2


def test_batch_with_a_retry_at_the_last_moment_is_not_finished(technologist: User, monkeypatch: Any) -> None:
    batch = checked(technologist, cells(1))
    CellImage.objects.update(status="failed", failure_code="worker_lost")
    real = transaction.atomic
    done: list[int] = []

    def retried_before(*given: Any, **options: Any) -> Any:
        if not done:
            done.append(1)
            services.retry_failed(actor=technologist, batch=batch)
        return real(*given, **options)

    monkeypatch.setattr("classifier.batch_steps.transaction.atomic", retried_before)
    assert batch_steps.finish_batches() == 0
    assert done == [1]
    batch.refresh_from_db()
    assert batch.state == BatchState.RUNNING


@pytest.mark.parametrize("status", ["released", "void"])
def test_paused_batch_of_a_closed_case_is_not_resumed(technologist: User, status: str) -> None:
    batch = checked(technologist, cells(1))
    services.pause_batch(actor=technologist, batch=batch)
    Case.objects.update(status=status)
    with pytest.raises(Conflict) as caught:
        services.resume_batch(actor=technologist, batch=batch)
    assert caught.value.code == f"case_{status}"
    assert not CellImage.objects.claimable().exists()


def test_batch_whose_case_is_closed_during_the_check_does_not_start_by_itself(
    technologist: User, monkeypatch: Any
) -> None:
    monkeypatch.setattr(batch_steps, "SLICE_SECONDS", -1.0)
    batch = submitted(technologist, cells(2))
    batch_steps.check_archives()
    Case.objects.update(status="released")
    check_all()
    batch.refresh_from_db()
    assert batch.waits_for_start
    assert not CellImage.objects.claimable().exists()
    with pytest.raises(Conflict):
        services.start_batch(actor=technologist, batch=batch)
    Case.objects.update(status="open")
    services.start_batch(actor=technologist, batch=batch)
    assert CellImage.objects.claimable().count() == 1


@pytest.mark.parametrize("act", ["pause", "resume", "cancel", "retry_failed"])
def test_many_images_are_locked_in_one_order_before_they_are_changed(technologist: User, act: str) -> None:
    batch = checked(technologist, cells(2))
    if act == "resume":
        services.pause_batch(actor=technologist, batch=batch)
    if act == "retry_failed":
        CellImage.objects.update(status="failed", failure_code="worker_lost")
    acts: dict[str, Callable[..., Any]] = {
        "pause": services.pause_batch,
        "resume": services.resume_batch,
        "cancel": services.cancel_batch,
        "retry_failed": services.retry_failed,
    }
    with CaptureQueriesContext(connection) as queries:
        acts[act](actor=technologist, batch=batch)
    said = [query["sql"] for query in queries]
    changed = next(at for at, sql in enumerate(said) if sql.startswith('UPDATE "classifier_cellimage"'))
    ids = 'SELECT "classifier_cellimage"."id"'
    locked = [sql for sql in said[:changed] if sql.startswith(ids) and "ORDER BY 1 ASC" in sql]
    assert locked, "no lock before the first change"
    assert connection.vendor == "sqlite" or locked[0].endswith("FOR UPDATE")


# --- The same picture from two sides -------------------------------------------------------------------------------
def test_person_who_hands_in_a_picture_that_is_on_hold_gets_it_classified(
    technologist: User, django_capture_on_commit_callbacks: Any
) -> None:
    files = cells(2)
    batch = checked(technologist, files, asks_before_start=True)
    with django_capture_on_commit_callbacks() as callbacks:
        image, new = hand_in(technologist, batch.case, files["cell-0000.jpg"])
    assert (new, image.on_hold, image.priority, image.batch) == (False, False, Priority.INTERACTIVE, None)
    assert len(callbacks) == 1, "the workers are woken"
    assert AuditEvent.objects.get(action="image_taken_over").facts["from_batch"] == str(batch.pk)
    services.cancel_batch(actor=technologist, batch=batch)
    assert list(CellImage.objects.claimable()) == [image]
    assert Void.objects.count() == 1


def test_batch_that_brings_what_another_one_holds_takes_it_over(
    technologist: User, model_version: ModelVersion
) -> None:
    files = cells(2)
    first = checked(technologist, files, accession_number="C-1", asks_before_start=True)
    second = checked(technologist, files, accession_number="C-1")
    assert set(CellImage.objects.values_list("batch", "on_hold")) == {(second.pk, False)}
    progress = progress_of([second])[second.pk]
    assert (progress.total, progress.duplicates) == (2, 0)
    services.cancel_batch(actor=technologist, batch=first)
    assert not Void.objects.exists()
    while pipeline.classify_queued():
        pass
    second.refresh_from_db()
    assert second.state == BatchState.FINISHED
    assert progress_of([second])[second.pk].classified == 2


def test_cancelling_who_took_a_picture_over_leaves_it_to_who_had_it(technologist: User) -> None:
    files = cells(1)
    checked(technologist, files, accession_number="C-1", asks_before_start=True)
    second = checked(technologist, {**files, **cells(2)}, accession_number="C-1", asks_before_start=True)
    services.cancel_batch(actor=technologist, batch=second)
    assert [image.original_name for image in CellImage.objects.claimable()] == ["cell-0000.jpg"]
    assert Void.objects.filter(image__original_name="cell-0001.jpg").count() == Void.objects.count() == 1


@pytest.mark.parametrize("who_runs", ["the first, resumed", "the second, started"])
def test_picture_of_two_batches_waits_only_as_long_as_neither_runs(technologist: User, who_runs: str) -> None:
    files = cells(2)
    first = checked(technologist, files, accession_number="C-1")
    first = services.pause_batch(actor=technologist, batch=first)
    second = checked(technologist, files, accession_number="C-1", asks_before_start=True)
    assert set(CellImage.objects.values_list("batch", "on_hold")) == {(second.pk, True)}

    if who_runs == "the first, resumed":
        runs = services.resume_batch(actor=technologist, batch=first)
    else:
        runs = services.start_batch(actor=technologist, batch=second)

    assert set(CellImage.objects.values_list("batch", "on_hold")) == {(runs.pk, False)}
    in_line = CellImage.objects.claimable().values_list("original_name", flat=True)
    assert list(in_line) == ["cell-0000.jpg", "cell-0001.jpg"]


def test_batch_that_starts_takes_nothing_from_one_that_runs(technologist: User) -> None:
    files = cells(1)
    first = checked(technologist, files, accession_number="C-1", asks_before_start=True)
    second = checked(technologist, files, accession_number="C-1")
    first = services.start_batch(actor=technologist, batch=first)
    assert CellImage.objects.get().batch == second
    assert not CellImage.objects.get().on_hold


def test_picture_of_a_cancelled_batch_is_not_brought_back_by_another_one(technologist: User) -> None:
    files = cells(1)
    first = checked(technologist, files, accession_number="C-1")
    first = services.pause_batch(actor=technologist, batch=first)
    services.cancel_batch(actor=technologist, batch=first)
    second = checked(technologist, cells(1, first=5), accession_number="C-1", asks_before_start=True)
    services.start_batch(actor=technologist, batch=second)
    assert CellImage.objects.get(batch=first).cancelled
    assert list(CellImage.objects.claimable()) == list(CellImage.objects.filter(batch=second))


def test_cancelling_keeps_what_was_classified_before(technologist: User, model_version: ModelVersion) -> None:
    batch = checked(technologist, cells(2))
    classified = CellImage.objects.order_by("turn").first()
    assert classified is not None
    prediction_of(classified, model_version)
    services.cancel_batch(actor=technologist, batch=batch)
    assert list(CellImage.objects.claimable()) == [classified]
    assert Void.objects.get().image != classified
    batch_steps.sweep_batches()
    assert Void.objects.count() == 1


def test_picture_of_a_cancelled_batch_may_come_again_in_any_way(technologist: User) -> None:
    files = cells(2)
    first = checked(technologist, files, accession_number="C-1", asks_before_start=True)
    services.cancel_batch(actor=technologist, batch=first)
    assert set(CellImage.objects.values_list("cancelled", flat=True)) == {True}
    image, new = hand_in(technologist, first.case, files["cell-0000.jpg"])
    assert (new, image.is_void) == (True, False)
    assert hand_in(technologist, first.case, files["cell-0000.jpg"]) == (image, False)
    again = checked(technologist, files, accession_number="C-1")
    assert list(again.members.values_list("code", flat=True)) == ["same_picture", ""]
    services.cancel_batch(actor=technologist, batch=again)
    assert CellImage.objects.filter(cancelled=True).count() == 3


def test_picture_that_a_person_voided_does_not_come_again(technologist: User, reader: User, case: Case) -> None:
    content = cells(1)["cell-0000.jpg"]
    image, _ = hand_in(technologist, case, content)
    services.void_image(actor=reader, image=image, reason="wrong slide")
    with pytest.raises(Conflict) as caught:
        hand_in(technologist, case, content)
    assert caught.value.code == "image_void"


def test_picture_that_is_taken_out_at_the_same_moment_is_to_be_sent_again(
    technologist: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(**_: Any) -> None:
        raise IntegrityError

    monkeypatch.setattr("classifier.services.images.store_image", beaten)

    with pytest.raises(Unavailable, match="busy"):
        services.add_image(actor=technologist, case=case, upload=SimpleUploadedFile("cell.jpg", jpeg_of_cell(5)))
