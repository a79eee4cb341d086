"""What /metrics tells: true numbers to whoever may read them, and no patient's."""

import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from accounts.models import User
from classifier import claims, heartbeat, pipeline, worker_counts
from classifier.models import Batch, CellImage, ImageStatus, ModelVersion, Priority, WorkerCounts
from hematovision.version import VERSION
from tests.pictures import jpeg_of_cell

ROOT = Path(__file__).resolve().parent.parent
MakeImage = Callable[..., CellImage]
Numbers = dict[tuple[str, tuple[str, ...]], float]


def scrape(**headers: str) -> Numbers:
    """(name, its labels' values in the order of their names) -> number, read as Prometheus reads it."""
    answer = Client().get("/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=")
    return {
        (
            sample.name.removeprefix("hematovision_"),
            tuple(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def test_queue_is_told_by_status_and_age(db: None, make_image: MakeImage) -> None:
    make_image(queued_at=timezone.now() - timedelta(seconds=90))
    make_image("failed")
    make_image(priority=Priority.BATCH, on_hold=True, queued_at=timezone.now() - timedelta(days=1))

    numbers = scrape()

    assert numbers["images", ("queued",)] == 2
    assert numbers["images", ("failed",)] == 1
    assert numbers["images", ("reviewed",)] == 0
    assert numbers["images_on_hold", ()] == 1
    assert numbers["queue_images", ("interactive",)] == 1
    assert 90 <= numbers["queue_oldest_seconds", ("interactive",)] < 120
    assert numbers["queue_oldest_seconds", ("batch",)] == 0, "what is on hold waits for a person, not for a worker"


def test_classified_images_are_counted_by_model_and_cell_type(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    images = [
        make_image(content=jpeg_of_cell(seed), queued_at=timezone.now() - timedelta(seconds=7)) for seed in (1, 2)
    ]

    pipeline.classify_queued()

    numbers = scrape()
    counted = {labels[0]: number for (name, labels), number in numbers.items() if name == "predictions_total"}
    written = [image.predictions.get().label or "unidentified" for image in images]
    assert counted == {label: written.count(label) for label in written}
    assert {labels[1] for (name, labels) in numbers if name == "predictions_total"} == {str(model_version)}
    assert numbers["wait_seconds_count", ("interactive",)] == 2
    assert numbers["wait_seconds_bucket", ("5.0", "interactive")] == 0
    assert numbers["wait_seconds_bucket", ("30.0", "interactive")] == 2
    assert 14 <= numbers["wait_seconds_sum", ("interactive",)] < 60
    assert numbers["run_seconds_count", ()] == 2
    assert numbers["run_seconds_bucket", ("+Inf",)] == 2
    assert 0 < numbers["run_seconds_sum", ()] < 60


def test_image_that_the_model_saw_before_is_no_new_prediction(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image()
    pipeline.classify_queued()
    CellImage.objects.filter(pk=image.pk).update(status=ImageStatus.QUEUED)

    pipeline.classify_queued()

    numbers = scrape()
    assert sum(number for (name, _), number in numbers.items() if name == "predictions_total") == 1
    assert numbers["run_seconds_count", ()] == 2


def test_expired_claims_and_failures_are_counted(make_image: MakeImage, model_version: ModelVersion) -> None:
    broken = make_image()
    broken.file.storage.delete(str(broken.file.name))
    pipeline.classify_queued()
    make_image(), make_image()
    claims.claim_batch(2)
    CellImage.objects.filter(status=ImageStatus.CLAIMED).update(claim_expires_at=Now() - timedelta(seconds=1))
    pipeline.sweep_expired_claims()

    numbers = scrape()

    assert numbers["failures_total", ("stored_file_missing",)] == 1
    assert numbers["claims_expired_total", ()] == 2


def test_workers_are_told_with_what_they_hold(model_version: ModelVersion) -> None:
    heartbeat.beat()

    numbers = scrape()

    assert numbers["workers", ("", model_version.sha256)] == 1
    assert numbers["active_model_info", (str(model_version), model_version.sha256)] == 1


def test_instance_tells_of_itself(db: None) -> None:
    numbers = scrape()

    [labels] = [labels for (name, labels) in numbers if name == "build_info"]
    assert labels[0] == connection.vendor
    assert labels[3] == VERSION
    assert 0 < numbers["disk_free_bytes", ()] <= numbers["disk_total_bytes", ()]
    assert numbers["database_up", ()] == 1
    for name in ("webhooks_waiting", "exports_waiting", "audit_unsealed", "batches_open"):
        assert numbers[name, ()] == 0
    assert numbers["audit_unsealed_oldest_seconds", ()] == 0


def test_without_a_database_the_rest_is_told(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Any:
        raise OperationalError("gone")

    monkeypatch.setattr("classifier.metrics.families", gone)

    numbers = scrape()

    assert numbers["database_up", ()] == 0
    assert ("disk_free_bytes", ()) in numbers
    assert ("images", ("queued",)) not in numbers, "an empty queue would be a lie"


@pytest.mark.parametrize(
    ("proxies", "address", "headers", "status"),
    [
        (0, "127.0.0.1", {}, 200),
        (0, "::1", {}, 200),
        (0, "192.0.2.7", {}, 404),
        (0, "", {}, 404),  # behind a socket: nobody knows who asks
        (0, "127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 404),
        (0, "127.0.0.1", {"X-Real-Ip": "192.0.2.7"}, 404),
        (0, "192.0.2.7", {"X-Forwarded-For": "127.0.0.1"}, 404),
        (1, "127.0.0.1", {"X-Forwarded-For": "127.0.0.1, 192.0.2.7"}, 404),
    ],
)
def test_without_a_token_only_this_very_machine_may_read(
    db: None, settings: Any, proxies: int, address: str, headers: dict[str, str], status: int
) -> None:
    settings.METRICS_TOKEN = ""
    settings.TRUSTED_PROXIES = proxies

    assert Client(REMOTE_ADDR=address).get("/metrics", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [("Bearer s3cret", 200), ("", 404), ("Bearer wrong", 404), ("s3cret", 404), ("Bearer s3cret\xe9", 404)],
)
def test_with_a_token_it_alone_counts(db: None, settings: Any, sent: str, status: int) -> None:
    settings.METRICS_TOKEN = "s3cret"
    for address in ("127.0.0.1", "192.0.2.7"):
        answer = Client(REMOTE_ADDR=address).get("/metrics", headers={"Authorization": sent})
        assert answer.status_code == status


def test_numbers_hold_no_patient_data_and_nothing_changes_them(
    make_image: MakeImage, model_version: ModelVersion, technologist: User
) -> None:
    image = make_image(original_name="Smith.jpg")
    pipeline.classify_queued()

    text = Client().get("/metrics").content.decode()

    for secret in (image.case.accession_number, "Smith", technologist.email, str(image.case_id), str(image.pk)):
        assert secret not in text
    assert Client().post("/metrics").status_code == 405


def test_scrape_leaves_a_full_table_alone(make_image: MakeImage, django_assert_max_num_queries: Any) -> None:
    make_image(), make_image("classified"), make_image("failed")

    # The first one of an hour also keeps the total of what is older.
    scrape()
    with django_assert_max_num_queries(13):
        scrape()


def test_totals_of_all_workers_are_added_up(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for slot, number in ((3, 5), (4, 2), (3, 1)):
        monkeypatch.setattr(worker_counts, "own_slot", lambda slot=slot: slot)
        worker_counts.count({("claims_expired",): number})
    worker_counts.count({("failures", "worker_lost"): 0})

    assert worker_counts.totals() == {("claims_expired",): 8}
    assert WorkerCounts.objects.count() == 2


def test_totals_stand_or_fall_with_the_work(
    make_image: MakeImage, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image()

    def fail(*_: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(worker_counts, "count", fail)
    with pytest.raises(OperationalError):
        pipeline.classify_queued()

    assert worker_counts.totals() == {}
    assert CellImage.objects.get().status == ImageStatus.QUEUED


def test_open_batches_are_counted(technologist: User, case: Any) -> None:
    Batch.objects.create(case=case, laboratory=case.laboratory, submitted_by=technologist)

    assert scrape()["batches_open", ()] == 1


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION
