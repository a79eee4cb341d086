"""Health answers that are true: alive is not ready, and ready means that an image could be classified now."""

import errno
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import InterfaceError, OperationalError
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.functions import Now
from django.test import Client

from classifier import heartbeat, pipeline
from classifier.errors import Unavailable
from classifier.models import ModelVersion, WorkerHeartbeat
from classifier.storage import PrivateStorage
from classifier.storage_use import Disk
from hematovision.health import newest_migrations
from tests.servers import RunningServer

NAMES = {"database", "migrations", "broker", "disk", "media", "model", "worker"}


def ready() -> tuple[int, dict[str, Any]]:
    response = Client().get("/readyz")
    checks: dict[str, Any] = response.json()["checks"]
    assert set(checks) == NAMES
    assert all(set(check) == {"ok", "code"} for check in checks.values())
    return response.status_code, checks


def failing(checks: dict[str, Any]) -> dict[str, str]:
    return {name: check["code"] for name, check in checks.items() if not check["ok"]}


def test_alive_needs_nothing(db: None) -> None:
    assert Client().get("/healthz").json() == {"ok": True}


def test_ready_when_everything_is_there(model_version: ModelVersion) -> None:
    heartbeat.beat()

    status, checks = ready()

    assert (status, failing(checks)) == (200, {})


def test_not_ready_without_model_and_worker(db: None) -> None:
    status, checks = ready()

    assert (status, failing(checks)) == (503, {"model": "model_missing", "worker": "no_worker"})


def test_not_ready_when_the_worker_was_last_seen_too_long_ago(model_version: ModelVersion) -> None:
    heartbeat.beat()
    WorkerHeartbeat.objects.update(seen_at=Now() - timedelta(minutes=2))

    assert failing(ready()[1]) == {"worker": "no_worker"}


def test_worker_that_could_not_load_the_model_does_not_count(model_version: ModelVersion) -> None:
    WorkerHeartbeat.objects.create(host="h", pid=1, model_code="model_altered", seen_at=Now())

    assert failing(ready()[1]) == {"worker": "worker_without_model"}


@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_not_ready_when_a_model_file_is_missing_or_altered(harm: str, tmp_path: Path, settings: Any, db: None) -> None:
    import shutil

    from classifier.model_registry import register_bundle
    from ml.model_card import shipped_bundle

    bundle = tmp_path / shipped_bundle().name
    shutil.copytree(shipped_bundle(), bundle)
    settings.MODEL_BUNDLES = tmp_path
    register_bundle(bundle)
    heartbeat.beat()
    model_file = bundle / "model.tflite"
    if harm == "missing":
        model_file.unlink()
    else:
        model_file.write_bytes(model_file.read_bytes() + b"x")

    assert failing(ready()[1]) == {"model": f"model_{harm}"}
    pipeline.held_model = None


def test_not_ready_without_broker_and_ready_again(model_version: ModelVersion, redis_server: RunningServer) -> None:
    heartbeat.beat()
    redis_server.pause()
    assert failing(ready()[1]) == {"broker": "broker_unavailable"}

    redis_server.start()
    assert ready()[0] == 200


def free(gigabytes: float) -> Callable[[Path], Disk]:
    return lambda folder: Disk(free=int(gigabytes * 1024**3), total=100 * 1024**3)


@pytest.mark.parametrize(
    ("gigabytes", "status", "code"), [(50, 200, None), (5, 200, "disk_low"), (0.1, 503, "disk_full")]
)
def test_disk_warns_before_it_is_full(
    model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch, gigabytes: float, status: int, code: str | None
) -> None:
    heartbeat.beat()
    monkeypatch.setattr("classifier.storage_use.look_at", free(gigabytes))

    answer, checks = ready()

    assert (answer, checks["disk"]) == (status, {"ok": status == 200, "code": code})


def test_not_ready_where_pictures_cannot_be_written(model_version: ModelVersion, settings: Any, tmp_path: Path) -> None:
    heartbeat.beat()
    (tmp_path / "a file").touch()
    settings.MEDIA_ROOT = tmp_path / "a file" / "media"

    assert failing(ready()[1]) == {"media": "media_not_writable"}


def test_asking_leaves_nothing_in_the_folder_of_the_pictures(model_version: ModelVersion, settings: Any) -> None:
    ready()

    assert list(Path(settings.MEDIA_ROOT).iterdir()) == []


def test_not_ready_before_the_newest_migration(model_version: ModelVersion) -> None:
    heartbeat.beat()
    newest = max(name for app, name in newest_migrations() if app == "classifier")
    MigrationRecorder.Migration.objects.filter(app="classifier", name=newest).delete()

    assert failing(ready()[1]) == {"migrations": "migrations_pending"}


def test_asking_costs_few_queries_and_tells_nothing_but_codes(
    model_version: ModelVersion, django_assert_max_num_queries: Any
) -> None:
    heartbeat.beat()
    ready()

    with django_assert_max_num_queries(5):
        body = Client().get("/readyz").content.decode()

    assert "/" not in body
    assert model_version.sha256 not in body


# --- What users see while something is missing ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OperationalError("connection refused"), 503, "database_unavailable"),
        (InterfaceError("connection already closed"), 503, "database_unavailable"),
        (OperationalError("database or disk is full"), 503, "storage_full"),
        (OSError(errno.ENOSPC, "No space left on device"), 503, "storage_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 503, "storage_full"),
        (OperationalError("no such column: x"), 500, "server_error"),
        (OSError(errno.EACCES, "Permission denied"), 500, "server_error"),
        (RuntimeError("odd"), 500, "server_error"),
    ],
)
def test_what_is_missing_for_now_is_a_sentence_and_a_time_to_come_again(
    db: None, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("hematovision.health.results", fail)
    monkeypatch.setattr("rest_framework.views.APIView.initial", fail)
    client = Client(raise_request_exception=False)

    page, api = client.get("/readyz"), client.get("/api/v1/cases/")

    assert (page.status_code, api.status_code) == (status, status)
    assert api["Content-Type"] == "application/problem+json"
    assert api.json()["code"] == code
    assert str(error) not in page.content.decode() + api.content.decode()
    assert page.get("Retry-After") == api.get("Retry-After") == ("5" if status == 503 else None)
    assert api.json()["detail"] in unescape(page.content.decode())


def test_room_that_runs_out_in_the_middle_of_a_file_leaves_no_part_of_it(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class RunsOut(ContentFile):
        def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
            yield b"the first part"
            raise OSError(errno.ENOSPC, "No space left on device")

    storage = PrivateStorage(location=tmp_path)

    with pytest.raises(Unavailable) as refused:
        storage.save("originals/cell.png", RunsOut(b"all of it"))

    assert refused.value.code == "storage_full"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_old_heartbeats_are_forgotten(model_version: ModelVersion) -> None:
    WorkerHeartbeat.objects.create(host="old", pid=1, seen_at=Now() - timedelta(days=2))

    heartbeat.beat()

    assert not WorkerHeartbeat.objects.filter(host="old").exists()
