"""Health answers that are true: alive is not ready, and ready means that an image could be classified now."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from classifier import heartbeat, pipeline
from classifier.models import ModelVersion, WorkerHeartbeat
from tests.servers import RunningServer

NAMES = {"database", "migrations", "broker", "model", "worker"}


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


def test_old_heartbeats_are_forgotten(model_version: ModelVersion) -> None:
    WorkerHeartbeat.objects.create(host="old", pid=1, seen_at=Now() - timedelta(days=2))

    heartbeat.beat()

    assert not WorkerHeartbeat.objects.filter(host="old").exists()
