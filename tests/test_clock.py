"""A clock that jumps: what was promised by the wrong one is not waited for, and nothing is lost or doubled."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from classifier import claims, heartbeat, pipeline
from classifier.models import Batch, Case, CellImage, ImageStatus, ModelVersion, Prediction, WorkerHeartbeat
from classifier.readiness import worker_obstacle
from hematovision.beat import SteadyScheduler
from hematovision.celery import app

MakeImage = Callable[..., CellImage]


def as_if_claimed(at: timedelta) -> None:
    """The claims that are held, as they would be had the clock been off by so much when they were made."""
    CellImage.objects.filter(status=ImageStatus.CLAIMED).update(claim_expires_at=F("claim_expires_at") + at)


def test_clock_set_forward_takes_the_image_back_and_its_late_worker_changes_nothing(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image()
    model = pipeline.load_model()
    late = claims.claim_batch(16)
    as_if_claimed(-timedelta(hours=1))

    assert pipeline.sweep_expired_claims() == 1
    assert pipeline.classify_queued() == 1
    pipeline.classify_batch(late, model)

    image.refresh_from_db()
    assert image.status == ImageStatus.CLASSIFIED
    assert Prediction.objects.count() == 1


def test_clock_set_back_frees_what_a_dead_worker_held_at_once(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    make_image()
    claims.claim_batch(16)
    as_if_claimed(timedelta(hours=1))

    assert pipeline.sweep_expired_claims() == 1
    assert pipeline.classify_queued() == 1


def test_claim_of_this_moment_is_nobody_elses(make_image: MakeImage, model_version: ModelVersion) -> None:
    make_image()
    claims.claim_batch(16)

    assert pipeline.sweep_expired_claims() == 0


def test_archive_that_a_dead_worker_held_is_free_when_the_clock_was_set_back(case: Case) -> None:
    about = {"case": case, "laboratory": case.laboratory, "submitted_by": case.opened_by}
    token = "7e57ab1e-0000-4000-8000-000000000000"
    expires = timezone.now() + timedelta(hours=1)
    Batch.objects.create(archive="batches/cells.zip", claim_token=token, claim_expires_at=expires, **about)

    assert Batch.objects.unchecked().count() == 1


def test_worker_of_before_the_clock_was_set_back_does_not_count_as_seen(model_version: ModelVersion) -> None:
    heartbeat.beat()
    assert worker_obstacle() is None

    WorkerHeartbeat.objects.update(seen_at=Now() + timedelta(hours=1))

    obstacle = worker_obstacle()
    assert obstacle is not None
    assert obstacle.code == "no_worker"


def test_timer_runs_on_when_the_clock_was_set_back(tmp_path: Path) -> None:
    timer = SteadyScheduler(app, schedule_filename=str(tmp_path / "schedule"), lazy=True)
    timer.setup_schedule()
    sent: list[Any] = []
    timer.apply_entry = lambda entry, producer=None: sent.append(entry.name)  # type: ignore[method-assign]
    ahead = timezone.now() + timedelta(hours=1)
    try:
        for entry in timer.schedule.values():
            entry.last_run_at = ahead
        timer.populate_heap()

        wait = timer.tick()

        assert 0 < wait <= 30, "the sweep comes after its usual time, not after an hour"
        for entry in timer.schedule.values():
            entry.last_run_at = timezone.now() - timedelta(hours=2)
        timer._heap = None
        timer.tick()
        assert len(sent) == 1
    finally:
        timer.close()
