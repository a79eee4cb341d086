"""Long polling: answered when there is something to say, without holding what others need."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import Laboratory, User
from classifier import waiting
from classifier.models import Batch, Case, CellImage, ModelVersion
from hematovision.supervisor import web_command
from tests.factories import prediction_of

MakeImage = Callable[..., CellImage]
Api = Callable[..., APIClient]
ROOT = Path(__file__).resolve().parent.parent


def url_of(image: CellImage) -> str:
    return f"/api/v1/images/{image.pk}/"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept each time; the clock goes on by just that, so no test waits."""
    slept: list[float] = []
    now = time.monotonic()

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(waiting, "sleep", sleep)
    monkeypatch.setattr(waiting, "monotonic", lambda: now + sum(slept))
    return slept


def test_image_that_is_through_is_answered_at_once(
    api: Api, technologist: User, make_image: MakeImage, model_version: ModelVersion, pauses: list[float]
) -> None:
    done, failed = make_image("classified"), make_image("failed")
    prediction_of(done, model_version)
    for image in (done, failed):
        answer = api(technologist).get(url_of(image), {"wait": 30})
        assert (answer.status_code, answer.json()["status"]) == (200, image.status)
    assert pauses == []


def test_answer_comes_as_soon_as_the_image_is_through(
    api: Api, technologist: User, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()
    slept: list[float] = []

    def classify_at_the_third_look(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            CellImage.objects.update(status="failed", failure_code="prediction_failed")

    monkeypatch.setattr(waiting, "sleep", classify_at_the_third_look)
    answer = api(technologist).get(url_of(image), {"wait": 30})
    assert answer.json()["status"] == "failed"
    assert "Retry-After" not in answer
    assert len(slept) == 3


@pytest.mark.parametrize("status", ["queued", "claimed"])
def test_answer_comes_when_the_time_is_up(
    api: Api, technologist: User, make_image: MakeImage, status: str, pauses: list[float]
) -> None:
    image = make_image(status)
    answer = api(technologist).get(url_of(image), {"wait": 30})
    assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert sum(pauses) == pytest.approx(30)
    assert max(pauses) <= 1
    assert len(pauses) < 40


def test_without_the_parameter_nothing_waits(
    api: Api, technologist: User, make_image: MakeImage, pauses: list[float]
) -> None:
    image = make_image()
    assert api(technologist).get(url_of(image)).json()["status"] == "queued"
    assert api(technologist).get(url_of(image), {"wait": 0}).json()["status"] == "queued"
    assert pauses == []


@pytest.mark.parametrize("wait", ["", "-1", "31", "1.5", "soon", "1e1", " 5", "999999999999", "٣"])
def test_time_that_is_none_is_refused(api: Api, technologist: User, make_image: MakeImage, wait: str) -> None:
    answer = api(technologist).get(url_of(make_image()), {"wait": wait})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_wait")


def test_time_that_is_given_twice_is_refused(api: Api, technologist: User, make_image: MakeImage) -> None:
    answer = api(technologist).get(f"{url_of(make_image())}?wait=1&wait=2")
    assert answer.json()["code"] == "invalid_wait"


def test_stranger_and_anonymous_never_wait(
    api: Api, stranger: User, technologist: User, make_image: MakeImage, pauses: list[float]
) -> None:
    image = make_image()
    assert api(stranger).get(url_of(image), {"wait": 30}).status_code == 404
    assert api(technologist).get(f"/api/v1/images/{uuid4()}/", {"wait": 30}).status_code == 404
    assert api(None).get(url_of(image), {"wait": 30}).status_code == 401
    assert pauses == []


def test_whoever_finds_all_places_taken_is_answered_at_once_and_told_when_to_come_again(
    api: Api, technologist: User, make_image: MakeImage, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "places", threading.BoundedSemaphore(1))
    image = make_image()
    with waiting.places:
        answer = api(technologist).get(url_of(image), {"wait": 30})
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert answer["Retry-After"] == "2"
    assert pauses == []
    assert "Retry-After" not in api(technologist).get(url_of(image), {"wait": 1})
    assert sum(pauses) == pytest.approx(1)


def test_a_quarter_of_the_threads_may_wait(settings: Any) -> None:
    assert waiting.places._initial_value == max(1, settings.WEB_THREADS // 4)  # type: ignore[attr-defined]


def test_setting_is_what_the_web_server_is_started_with(settings: Any) -> None:
    flag = ["--threads", str(settings.WEB_THREADS)]
    command = web_command("127.0.0.1:8000")
    assert command[command.index("--threads") :][:2] == flag
    assert ", ".join(f'"{part}"' for part in flag) in (ROOT / "Dockerfile").read_text()


def test_place_is_free_again_when_something_goes_wrong(
    api: Api, technologist: User, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "places", threading.BoundedSemaphore(1))

    def breaks(seconds: float) -> None:
        raise RuntimeError

    monkeypatch.setattr(waiting, "sleep", breaks)
    client = api(technologist)
    client.raise_request_exception = False
    assert client.get(url_of(make_image()), {"wait": 5}).status_code == 500
    assert waiting.places.acquire(blocking=False)


@pytest.mark.django_db(transaction=True)
def test_no_database_connection_is_held_while_waiting(
    api: Api, technologist: User, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()
    client = api(technologist)
    held: list[bool] = []
    monkeypatch.setattr(waiting, "sleep", lambda seconds: held.append(connection.connection is not None))
    began = time.monotonic()
    monkeypatch.setattr(waiting, "monotonic", lambda: began + len(held))
    assert client.get(url_of(image), {"wait": 5}).status_code == 200
    assert held == [False] * 5


def test_each_look_is_one_small_query(
    api: Api, technologist: User, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()
    looks: list[int] = []
    client = api(technologist)
    client.get(url_of(image))
    with CaptureQueriesContext(connection) as queries:
        monkeypatch.setattr(waiting, "sleep", lambda seconds: looks.append(len(queries)))
        moments = iter(range(8))
        monkeypatch.setattr(waiting, "monotonic", lambda: next(moments))
        client.get(url_of(image), {"wait": 5})
    assert [after - before for before, after in pairwise(looks)] == [1] * (len(looks) - 1)
    assert len(looks) >= 3


@pytest.fixture
def closing() -> Iterator[None]:
    yield
    connections.close_all()


@pytest.mark.django_db(transaction=True)
def test_client_that_waits_hears_of_the_worker_at_once(
    api: Api, technologist: User, make_image: MakeImage, closing: None
) -> None:
    image = make_image()
    client = api(technologist)
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(client.get(url_of(image), {"wait": 20}).json()["status"])
        finally:
            connections.close_all()

    thread = threading.Thread(target=ask)
    began = time.monotonic()
    thread.start()
    time.sleep(0.5)
    CellImage.objects.update(status="failed", failure_code="prediction_failed")
    thread.join()
    assert answers == ["failed"]
    assert time.monotonic() - began < 4


# --- Batches ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(case: Case, laboratory: Laboratory, technologist: User) -> Batch:
    return Batch.objects.create(case=case, laboratory=laboratory, submitted_by=technologist)


@pytest.mark.parametrize(
    ("times", "waits"),
    [
        ((), True),
        (("checked_at",), False),
        (("checked_at", "started_at"), True),
        (("checked_at", "started_at", "paused_at"), False),
        (("checked_at", "started_at", "finished_at"), False),
        (("cancelled_at",), False),
    ],
)
def test_batch_is_waited_for_while_the_machine_is_at_it(
    api: Api, technologist: User, batch: Batch, pauses: list[float], times: tuple[str, ...], waits: bool
) -> None:
    Batch.objects.update(**dict.fromkeys(times, timezone.now() - timedelta(minutes=1)))
    answer = api(technologist).get(f"/api/v1/batches/{batch.pk}/", {"wait": 10})
    assert answer.status_code == 200
    assert sum(pauses) == pytest.approx(10 if waits else 0)


def test_stranger_never_waits_for_a_batch(api: Api, stranger: User, batch: Batch, pauses: list[float]) -> None:
    assert api(stranger).get(f"/api/v1/batches/{batch.pk}/", {"wait": 10}).status_code == 404
    assert pauses == []


def test_schema_documents_the_parameter(api: Api) -> None:
    schema = api(None).get("/api/v1/schema/", HTTP_ACCEPT="application/json").json()
    for path in ("/api/v1/images/{image_id}/", "/api/v1/batches/{batch_id}/"):
        parameters = {one["name"]: one for one in schema["paths"][path]["get"]["parameters"]}
        assert parameters["wait"]["schema"] == {"type": "integer", "minimum": 0, "maximum": 30}
