"""Batches in line with each other, and in a person's hand at every moment."""

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import AuditEvent, User
from classifier import batch_steps, claims, pipeline, services
from classifier.batches import progress_of
from classifier.errors import Conflict, HematoVisionError
from classifier.models import (
    Batch,
    BatchState,
    Case,
    CellImage,
    ModelVersion,
    Notification,
    Void,
)
from classifier.services.batches import ClaimLost, keep_member
from tests.factories import image_in_state
from tests.handing_in import check_all, checked, classify_all, submitted
from tests.zips import cells

Api = Callable[..., APIClient]
TEXT = b"this is not a picture"


def said_of(error: pytest.ExceptionInfo[HematoVisionError]) -> str:
    return error.value.code


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
    claim = claims.claim_batch(2)
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
    pipeline.classify_batch(claims.claim_batch(2), pipeline.load_model())
    held = claims.claim_batch(1)
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
