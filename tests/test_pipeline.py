"""What the machine guarantees: once, in order, nothing lost, nothing doubled, nothing invented."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from classifier import claims, pipeline
from classifier.errors import FAILURES, InvalidTransition
from classifier.models import CellImage, ImageStatus, ModelVersion, Prediction, Priority, Review
from classifier.querysets import CellImageQuerySet
from classifier.transitions import TRANSITIONS, move
from ml.errors import ModelUnavailable, UnreadableImage
from tests.factories import prediction_of
from tests.ml.smears import draw_field, encoded
from tests.servers import RunningServer

MakeImage = Callable[..., CellImage]
PAIRS = [(source, target) for source in ImageStatus for target in ImageStatus]


class FaultyPredictor:
    """The real predictor, but some pictures (known by their width) make it raise."""

    def __init__(self, real: Any, *, poison: set[int]) -> None:
        self.real = real
        self.card = real.card
        self.poison = poison

    def prepare(self, image: bytes, *, shown_side: int = 0) -> Any:
        return self.real.prepare(image, shown_side=shown_side)

    def predict(self, prepared: Any) -> Any:
        if any(cell.width in self.poison for cell in prepared):
            raise RuntimeError("boom")
        return self.real.predict(prepared)


@pytest.fixture
def loaded(model_version: ModelVersion) -> pipeline.LoadedModel:
    return pipeline.load_model()


def test_image_is_classified_with_everything_a_prediction_must_hold(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image()

    assert pipeline.classify_queued() == 1

    image.refresh_from_db()
    assert image.status == ImageStatus.CLASSIFIED
    assert image.classified_at is not None
    prediction = image.predictions.get()
    assert prediction.model_version == model_version
    assert set(prediction.probabilities) == set(model_version.labels)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert prediction.conformal_set
    assert prediction.abstained is (prediction.label == "")
    assert prediction.duration_ms > 0


def test_every_white_cell_of_a_field_is_kept_and_none_is_counted(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    field = draw_field(640, 480, [(150, 200, 120), (450, 250, 130)])
    image = make_image(content=encoded(field))

    pipeline.classify_queued()

    prediction = image.predictions.get()
    assert (prediction.label, prediction.abstained) == ("", True)
    assert [set(found) for found in prediction.leukocytes] == [
        {"box", "label", "suggestion", "confidence", "reason_code", "reason"}
    ] * 2
    boxes = [found["box"] for found in prediction.leukocytes]
    assert any(left < 150 < right and top < 200 < bottom for left, top, right, bottom in boxes)
    assert any(left < 450 < right and top < 250 < bottom for left, top, right, bottom in boxes)


def test_database_still_refuses_to_change_a_prediction_after_every_migration(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    prediction_of(make_image("classified"), model_version)

    with pytest.raises(DatabaseError, match="fact is never"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE classifier_prediction SET confidence = 1")


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda status: str(status))
def test_only_moves_of_the_table_are_possible(make_image: MakeImage, source: ImageStatus, target: ImageStatus) -> None:
    image = make_image(source)
    changes: dict[str, Any] = {}
    if target is ImageStatus.CLAIMED:
        changes = {"claim_token": uuid4(), "claim_expires_at": Now()}
    if target is ImageStatus.FAILED:
        changes = {"failure_code": "prediction_failed"}
    if target is ImageStatus.REVIEWED:
        changes = {"current_review": Review.objects.create(image=image, reader=image.uploaded_by, verdict="UNUSABLE")}
    if source is ImageStatus.FAILED:
        changes["failure_code"] = changes.get("failure_code", "")
    rows = CellImage.objects.filter(pk=image.pk)

    if (source, target) in TRANSITIONS:
        assert move(rows, source=source, target=target, **changes) == 1
        assert rows.get().status == target
    else:
        with pytest.raises(InvalidTransition):
            move(rows, source=source, target=target, **changes)
        assert rows.get().status == source


def test_person_who_waits_is_served_before_a_batch_and_the_oldest_first(make_image: MakeImage) -> None:
    now = timezone.now()
    batch = make_image(priority=Priority.BATCH, queued_at=now - timedelta(hours=1))
    late = make_image(queued_at=now)
    early = make_image(queued_at=now - timedelta(minutes=1))

    assert [image.pk for image in claims.claim_batch(8).images] == [early.pk, late.pk, batch.pk]


def test_claim_takes_no_more_than_asked_and_bears_token_and_expiry(make_image: MakeImage) -> None:
    for _ in range(3):
        make_image()

    claim = claims.claim_batch(2)

    assert len(claim.images) == 2
    assert {image.claim_token for image in claim.images} == {claim.token}
    assert all(image.claim_expires_at and image.claim_expires_at > timezone.now() for image in claim.images)
    assert all(image.attempts == 1 for image in claim.images)


def test_image_that_was_claimed_before_is_claimed_alone(make_image: MakeImage) -> None:
    suspect = make_image(attempts=1, queued_at=timezone.now() - timedelta(minutes=5))
    fresh = [make_image() for _ in range(2)]

    alone = claims.claim_batch(8)
    together = claims.claim_batch(8)

    assert [image.pk for image in alone.images] == [suspect.pk]
    assert alone.images[0].claimed_alone
    assert {image.pk for image in together.images} == {image.pk for image in fresh}
    assert not any(image.claimed_alone for image in together.images)


@pytest.mark.django_db(transaction=True)
def test_four_claimers_at_once_never_share_an_image(make_image: MakeImage) -> None:
    images = {make_image().pk for _ in range(24)}
    taken: list[Any] = []
    start = threading.Barrier(4)

    def claim_until_empty() -> None:
        try:
            start.wait()
            while claimed := claims.claim_batch(3).images:
                taken.extend(image.pk for image in claimed)
        finally:
            connection.close()

    threads = [threading.Thread(target=claim_until_empty) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == len(images)
    assert set(taken) == images


def test_late_worker_whose_claim_was_swept_writes_nothing(make_image: MakeImage, loaded: pipeline.LoadedModel) -> None:
    image = make_image()
    late = claims.claim_batch(1)
    CellImage.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    assert pipeline.sweep_expired_claims() == 1
    pipeline.classify_queued()

    pipeline.classify_batch(late, loaded)

    assert image.predictions.count() == 1


def test_late_worker_does_not_disturb_the_one_that_has_the_image_now(
    make_image: MakeImage, loaded: pipeline.LoadedModel
) -> None:
    image = make_image()
    late = claims.claim_batch(1)
    CellImage.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    pipeline.sweep_expired_claims()
    present = claims.claim_batch(1)

    pipeline.classify_batch(late, loaded)

    image.refresh_from_db()
    assert (image.status, image.claim_token) == (ImageStatus.CLAIMED, present.token)
    assert not image.predictions.exists()


def test_sweep_leaves_a_claim_that_has_not_expired(make_image: MakeImage) -> None:
    make_image()
    claims.claim_batch(1)

    assert pipeline.sweep_expired_claims() == 0


def test_worker_lost_with_neighbours_speaks_against_no_image(make_image: MakeImage) -> None:
    for _ in range(2):
        make_image()
    claims.claim_batch(8)
    CellImage.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))

    pipeline.sweep_expired_claims()

    assert set(CellImage.objects.values_list("status", "faults", "attempts")) == {("queued", 0, 1)}


def test_image_whose_worker_is_lost_three_times_while_alone_fails_with_a_reason(make_image: MakeImage) -> None:
    image = make_image(attempts=1)
    for _ in range(3):
        assert len(claims.claim_batch(8).images) == 1
        CellImage.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
        pipeline.sweep_expired_claims()

    image.refresh_from_db()
    assert (image.status, image.failure_code, image.faults) == ("failed", "worker_lost", 3)


def test_picture_that_breaks_the_model_fails_alone_after_three_tries(
    make_image: MakeImage, loaded: pipeline.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.pictures import jpeg_of_cell

    poison = make_image(content=jpeg_of_cell(1, (200, 224)))
    neighbours = [make_image() for _ in range(3)]
    faulty = pipeline.LoadedModel(loaded.version, loaded.signature, FaultyPredictor(loaded.predictor, poison={200}))
    monkeypatch.setattr(pipeline, "load_model", lambda: faulty)

    while pipeline.classify_queued():
        pass

    poison.refresh_from_db()
    assert (poison.status, poison.failure_code, poison.faults) == ("failed", "prediction_failed", 3)
    assert not poison.predictions.exists()
    assert [image.predictions.count() for image in neighbours] == [1, 1, 1]


def test_prediction_that_the_database_refuses_fails_alone(
    make_image: MakeImage, loaded: pipeline.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = make_image(queued_at=timezone.now() - timedelta(minutes=1))
    neighbours = [make_image() for _ in range(2)]
    real = pipeline.as_row

    def as_row(image: CellImage, version: ModelVersion, prediction: Any) -> Prediction:
        row = real(image, version, prediction)
        row.confidence = 2.0 if image.pk == poison.pk else row.confidence
        return row

    monkeypatch.setattr(pipeline, "as_row", as_row)
    while pipeline.classify_queued():
        pass

    poison.refresh_from_db()
    assert (poison.status, poison.failure_code) == ("failed", "prediction_failed")
    assert [image.predictions.count() for image in neighbours] == [1, 1]


def test_fault_of_the_database_costs_the_pictures_nothing(
    make_image: MakeImage, loaded: pipeline.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pipeline, "complete", broken)
    with pytest.raises(OSError, match="disk full"):
        pipeline.classify_queued()

    image.refresh_from_db()
    assert (image.status, image.attempts, image.faults) == ("queued", 0, 0)


def test_stored_file_that_is_gone_fails_at_once(make_image: MakeImage, model_version: ModelVersion) -> None:
    image = make_image()
    Path(image.file.path).unlink()

    pipeline.classify_queued()

    image.refresh_from_db()
    assert (image.status, image.failure_code) == ("failed", "stored_file_missing")


def test_stored_file_that_was_altered_is_never_classified(make_image: MakeImage, model_version: ModelVersion) -> None:
    image = make_image()
    path = Path(image.file.path)
    path.write_bytes(path.read_bytes()[:-2] + b"xx")

    pipeline.classify_queued()

    image.refresh_from_db()
    assert (image.status, image.failure_code) == ("failed", "stored_file_altered")
    assert not image.predictions.exists()


def test_unreadable_picture_fails_and_its_neighbour_does_not(
    make_image: MakeImage, loaded: pipeline.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = make_image(), make_image()
    real = loaded.predictor.prepare
    contents = Path(bad.file.path).read_bytes()

    def prepare(content: bytes, **asked: Any) -> Any:
        if content == contents:
            raise UnreadableImage("unreadable", "No picture.")
        return real(content, **asked)

    monkeypatch.setattr(loaded.predictor, "prepare", prepare)
    pipeline.classify_queued()

    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.status, bad.failure_code) == ("failed", "unreadable_image")
    assert good.status == "classified"


def test_nothing_is_claimed_without_a_model(make_image: MakeImage) -> None:
    image = make_image()

    assert pipeline.classify_queued() == 0

    image.refresh_from_db()
    assert (image.status, image.attempts) == ("queued", 0)
    assert not Prediction.objects.exists()


def test_altered_model_file_stops_claiming_until_it_is_restored(
    make_image: MakeImage, tmp_path: Path, settings: Any
) -> None:
    import shutil

    from classifier.model_registry import register_bundle
    from ml.model_card import shipped_bundle

    bundle = tmp_path / shipped_bundle().name
    shutil.copytree(shipped_bundle(), bundle)
    settings.MODEL_BUNDLES = tmp_path
    register_bundle(bundle)
    image = make_image()
    model_file = bundle / "model.tflite"
    original = model_file.read_bytes()

    model_file.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(ModelUnavailable) as refused:
        pipeline.load_model()
    assert refused.value.code == "model_altered"
    assert pipeline.classify_queued() == 0
    assert not image.predictions.exists()

    model_file.write_bytes(original)
    assert pipeline.classify_queued() == 1
    assert image.predictions.count() == 1


def test_second_model_adds_a_prediction_beside_the_first(make_image: MakeImage, loaded: pipeline.LoadedModel) -> None:
    image = make_image()
    pipeline.classify_queued()
    newer = ModelVersion.objects.create(
        name="other", version="2", sha256="0" * 64, labels=loaded.version.labels, preprocessing_version="1"
    )
    CellImage.objects.update(status="queued")

    claim = claims.claim_batch(1)
    pipeline.classify_batch(claim, pipeline.LoadedModel(newer, (), loaded.predictor))

    assert image.predictions.count() == 2


def test_heartbeat_survives_whatever_one_beat_runs_into(monkeypatch: pytest.MonkeyPatch) -> None:
    from classifier import heartbeat

    beats: list[str] = []

    def beat() -> None:
        beats.append("beat")
        raise ImportError("no runtime")

    def sleep(_: float) -> None:
        if len(beats) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(heartbeat, "beat", beat)
    monkeypatch.setattr("classifier.heartbeat.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        heartbeat.beat_for_ever()

    assert beats == ["beat", "beat"]


@pytest.mark.django_db(transaction=True)
def test_wake_up_that_breaks_does_not_take_the_picture_with_it(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("odd broker")

    monkeypatch.setattr("classifier.wakeup.current_app.send_task", broken)
    image = make_image()

    assert Path(image.file.path).exists()
    assert CellImage.objects.get().status == "queued"


def test_broker_that_hangs_delays_an_upload_by_seconds_only(redis_server: RunningServer) -> None:
    import signal
    import time

    from classifier.wakeup import send_wake_up
    from hematovision.health import broker

    assert redis_server.process
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        start = time.monotonic()
        send_wake_up()
        assert broker() == "broker_unavailable"
        assert time.monotonic() - start < 30
    finally:
        redis_server.process.send_signal(signal.SIGCONT)


def test_every_failure_code_has_a_sentence_that_says_what_to_do() -> None:
    for sentence in FAILURES.values():
        assert sentence.endswith(".")
        assert "Classify it by hand" in sentence or "Upload" in sentence


def test_rows_are_locked_in_the_order_in_which_a_paused_batch_locks_them(
    make_image: MakeImage, loaded: pipeline.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever locks several images does it by their ids; two who didn't could wait for each other for ever."""
    orders: list[tuple[Any, ...]] = []
    lock = CellImageQuerySet.select_for_update

    def noted(images: CellImageQuerySet, **options: Any) -> CellImageQuerySet:
        if not options.get("skip_locked"):
            orders.append(tuple(images.query.order_by))
        return lock(images, **options)

    monkeypatch.setattr(CellImageQuerySet, "select_for_update", noted)
    for _ in range(3):
        make_image()

    pipeline.give_back(claims.claim_batch(3))
    assert orders == [("pk",)]
    # The completion's statement is built once, and not by this test.
    assert pipeline.STILL_HELD.query.select_for_update
    assert pipeline.STILL_HELD.query.order_by == ("pk",)
    make_image("claimed", claim_expires_at=timezone.now() - timedelta(hours=1))
    assert pipeline.sweep_expired_claims() == 1
    assert orders == [("pk",)] * 4


# --- A turn ----------------------------------------------------------------------------------------------------


def test_turn_goes_on_until_nothing_is_queued_or_its_time_is_over(
    make_image: MakeImage, loaded: pipeline.LoadedModel, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MICRO_BATCH_SIZE = 1
    sent: list[int] = []
    called: list[int] = []
    monkeypatch.setattr(pipeline, "send_wake_up", lambda: sent.append(1))
    monkeypatch.setattr(pipeline, "send_unless_one_waits", lambda: called.append(1))
    for _ in range(4):
        make_image()

    assert pipeline.classify_queued(0) == 1
    assert sent == [1], "somebody goes on with the rest"
    assert called == []
    assert pipeline.classify_queued(60) == 3
    assert sent == [1], "nothing is left to wake anybody for"
    assert called == [1], "one more worker is called for what a turn finds"


def test_large_pictures_are_claimed_few_at_a_time(
    make_image: MakeImage, loaded: pipeline.LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [make_image() for _ in range(3)]
    pixels = [image.width * image.height for image in images]
    monkeypatch.setattr(claims, "MOST_PIXELS", pixels[0] + pixels[1])

    assert [image.pk for image in claims.claim_batch(3).images] == [image.pk for image in images[:2]]

    monkeypatch.setattr(claims, "MOST_PIXELS", 1)
    assert [image.pk for image in claims.claim_batch(3).images] == [images[2].pk]


def test_claim_waits_for_no_disk_and_a_completion_does(make_image: MakeImage, loaded: pipeline.LoadedModel) -> None:
    make_image()
    with CaptureQueriesContext(connection) as asked:
        claim = claims.claim_batch(1)
    waits_not = [each["sql"] for each in asked.captured_queries if "synchronous_commit" in each["sql"]]
    assert waits_not == (["SET LOCAL synchronous_commit = off"] if connection.vendor == "postgresql" else [])

    with CaptureQueriesContext(connection) as asked:
        pipeline.classify_batch(claim, loaded)
    assert not [each for each in asked.captured_queries if "synchronous_commit" in each["sql"]]
    assert len(asked) <= 14
