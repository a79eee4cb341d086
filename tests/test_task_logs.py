"""A line of a worker says which task, process, claim and request it belongs to."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from celery import current_app

from classifier import pipeline
from classifier.models import CellImage, ModelVersion
from hematovision.task_logs import name_the_process, pass_on_the_request


@pytest.fixture(autouse=True)
def fresh_context() -> Iterator[None]:
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"request_id": "r-1", "user_id": "u-1", "ip": "192.0.2.7"}, {"request_id": "r-1"}),
        ({"parent_task_id": "t-1", "request_id": "r-1", "claim": "c-1"}, {"parent_task_id": "t-1"}),
        ({}, {}),
    ],
)
def test_message_carries_an_id_and_nobodys_name_or_address(before: dict[str, str], after: dict[str, str]) -> None:
    pass_on_the_request(context=before)

    assert before == after


def test_wake_up_of_a_request_is_sent_with_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "kombu.messaging.Producer.publish", lambda self, body, headers=None, **_: sent.append(headers or {})
    )
    structlog.contextvars.bind_contextvars(request_id="r-2", ip="192.0.2.7")

    current_app.send_task("classifier.classify_queued")

    assert sent[0]["__django_structlog__"] == {"request_id": "r-2"}


def test_lines_about_claimed_images_name_the_claim_the_images_and_the_worker(
    make_image: Callable[..., CellImage], model_version: ModelVersion, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    image, broken = make_image(), make_image()
    broken.file.storage.delete(str(broken.file.name))
    name_the_process()

    pipeline.classify_queued()

    lines: dict[str, Any] = {
        record.msg["event"]: record.msg for record in caplog.records if isinstance(record.msg, dict)
    }
    claimed, failed, done = lines["images_claimed"], lines["image_failed"], lines["images_classified"]
    assert claimed["images"] == [str(image.pk), str(broken.pk)]
    assert claimed["batches"] == []
    assert claimed["claim"] == failed["claim"] == done["claim"]
    assert failed["image"] == str(broken.pk)
    assert (done["count"], done["model"]) == (2, str(model_version))
    assert ":" in done["worker"]
    assert "claim" not in structlog.contextvars.get_contextvars(), "it must not stand on the lines of the next task"
