"""Idempotency-Key: the same request again gets the same answer, and happens once."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.urls import path
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import Role, Verb
from classifier import services, tasks, thumbnails
from classifier.api import idempotency
from classifier.api.idempotency import honour_keys
from classifier.errors import Conflict
from classifier.models import Case, CellImage, IdempotentRequest, ModelVersion, Report
from tests.conftest import PASSWORD, person
from tests.pictures import jpeg_of_cell
from tests.signing import ready_to_sign
from tests.zips import cells, zip_of

Api = Callable[..., APIClient]
CASES = "/api/v1/cases/"
KEY = {"Idempotency-Key": "5f0c-1"}


def body_of(response: Any) -> Any:
    return json.loads(response.content)


def stored_files(settings: Any) -> list[Path]:
    return [path for path in Path(settings.MEDIA_ROOT).rglob("*") if path.is_file()]


# --- The same request again ------------------------------------------------------------------------------------


def test_repeated_request_gets_the_first_answer_and_happens_once(api: Api, technologist: User) -> None:
    client = api(technologist)

    first = client.post(CASES, {"specimen": "EDTA blood", "wbc_value": 7.25, "wbc_source": "XN"}, headers=KEY)
    again = client.post(CASES, {"wbc_source": "XN", "wbc_value": 7.25, "specimen": "EDTA blood"}, headers=KEY)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again["Location"] == first["Location"]
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    assert Case.objects.count() == AuditEvent.objects.filter(action="case_opened").count() == 1


def test_without_a_key_every_request_counts(api: Api, technologist: User) -> None:
    client = api(technologist)

    assert [client.post(CASES, {}).status_code for _ in range(2)] == [201, 201]
    assert Case.objects.count() == 2
    assert not IdempotentRequest.objects.exists()


def multipart(picture: bytes, boundary: str) -> dict[str, Any]:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="cell.jpg"\r\n'
    body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + picture + f"\r\n--{boundary}--\r\n".encode()
    return {"data": body, "content_type": f"multipart/form-data; boundary={boundary}"}


def test_upload_is_the_same_request_whatever_its_boundary(api: Api, technologist: User, case: Case) -> None:
    client, url = api(technologist), f"/api/v1/cases/{case.pk}/images/"

    first = client.post(url, headers=KEY, **multipart(jpeg_of_cell(1), "one"))
    again = client.post(url, headers=KEY, **multipart(jpeg_of_cell(1), "two"))
    other = client.post(url, headers=KEY, **multipart(jpeg_of_cell(2), "one"))

    # 202 again, where the service alone would say 200: the answer is the first one.
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 409)
    assert again.content == first.content
    assert CellImage.objects.count() == 1


@pytest.mark.parametrize("second", [{"specimen": "other"}, {}, {"specimen": "EDTA", "wbc_source": "XN"}])
def test_key_with_another_request_is_refused(api: Api, technologist: User, second: dict[str, str]) -> None:
    client = api(technologist)
    client.post(CASES, {"specimen": "EDTA"}, headers=KEY)

    refused = client.post(CASES, second, headers=KEY)

    assert (refused.status_code, body_of(refused)["code"]) == (409, "idempotency_key_reused")
    assert Case.objects.count() == 1


def test_key_at_another_address_is_refused(api: Api, technologist: User, case: Case) -> None:
    client = api(technologist)
    client.post(CASES, {}, headers=KEY)

    refused = client.post(f"/api/v1/cases/{case.pk}/assign/", {}, headers=KEY)

    assert body_of(refused)["code"] == "idempotency_key_reused"


def test_same_key_of_another_token_or_person_is_another_key(api: Api, technologist: User, reader: User) -> None:
    session = APIClient()
    session.force_login(technologist)

    answers = [
        client.post(CASES, {}, headers=KEY) for client in (api(technologist), api(technologist), api(reader), session)
    ]

    assert [answer.status_code for answer in answers] == [201] * 4
    assert Case.objects.count() == 4
    assert session.post(CASES, {}, headers=KEY).content == answers[3].content


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "schl\xfcssel", "tab\t"])
def test_malformed_key_is_a_problem(api: Api, technologist: User, key: str) -> None:
    refused = api(technologist).post(CASES, {}, HTTP_IDEMPOTENCY_KEY=key)

    assert (refused.status_code, body_of(refused)["code"]) == (400, "malformed_idempotency_key")
    assert not Case.objects.exists()


def test_longest_key_is_accepted(api: Api, technologist: User) -> None:
    key = "".join(chr(33 + n % 94) for n in range(255))

    assert [api(technologist).post(CASES, {}, HTTP_IDEMPOTENCY_KEY=key).status_code] == [201]


# --- Refusals and faults ---------------------------------------------------------------------------------------


def test_refusal_is_not_kept(api: Api, technologist: User, case: Case) -> None:
    client = api(technologist)
    wanted = {"accession_number": case.accession_number}

    refused = client.post(CASES, wanted, headers=KEY)
    Case.objects.filter(pk=case.pk).update(accession_number="moved away")
    then = client.post(CASES, wanted, headers=KEY)

    assert (refused.status_code, then.status_code) == (409, 201)


def test_stranger_does_not_learn_of_keys(api: Api, technologist: User, stranger: User, case: Case) -> None:
    url = f"/api/v1/cases/{case.pk}/assign/"
    api(technologist).post(url, {"reader": None}, headers=KEY)

    assert api(stranger).post(url, {"reader": None}, headers=KEY).status_code == 404


def test_token_that_is_narrowed_meanwhile_gets_no_kept_answer(api: Api, technologist: User) -> None:
    client = api(technologist)
    client.post(CASES, {}, headers=KEY)
    technologist.auth_token_set.update(scopes=["read"])

    assert client.post(CASES, {}, headers=KEY).status_code == 403


def test_crash_between_effect_and_answer_leaves_neither(
    api: Api, technologist: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise RuntimeError("power cut")

    client = api(technologist)
    client.raise_request_exception = False
    with monkeypatch.context() as broken:
        broken.setattr(idempotency, "keep", crash)
        assert client.post(CASES, {}, headers=KEY).status_code >= 500

    assert not Case.objects.exists()
    assert not AuditEvent.objects.filter(action="case_opened").exists()
    assert client.post(CASES, {}, headers=KEY).status_code == 201


def test_wrong_passwords_are_counted_with_a_key_too(
    api: Api, reader: User, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    client, url = api(reader), f"/api/v1/cases/{case.pk}/reports/"

    tries = [client.post(url, {"password": f"wrong {n}"}, headers=KEY) for n in range(6)]

    assert [body_of(answer)["code"] for answer in tries] == ["wrong_password"] * 5 + ["too_many_tries"]
    assert tries[5]["Retry-After"] == "300"
    assert not Report.objects.exists()


def test_report_is_signed_once_and_the_password_is_no_part_of_what_is_kept(
    api: Api, reader: User, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    client, url = api(reader), f"/api/v1/cases/{case.pk}/reports/"

    first = client.post(url, {"password": PASSWORD}, headers=KEY)
    again = client.post(url, {"password": "typed differently"}, headers=KEY)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert Report.objects.count() == 1


# --- Time ------------------------------------------------------------------------------------------------------


def test_answer_is_kept_for_a_day_and_then_forgotten_with_all_that_are_as_old(api: Api, technologist: User) -> None:
    client = api(technologist)
    client.post(CASES, {}, headers=KEY)
    client.post(CASES, {}, headers={"Idempotency-Key": "other"})
    kept = IdempotentRequest.objects.first()
    assert kept is not None
    assert timedelta(hours=23) < kept.expires_at - timezone.now() <= timedelta(hours=24)
    IdempotentRequest.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert client.post(CASES, {"specimen": "new"}, headers=KEY).status_code == 201
    assert [row.key for row in IdempotentRequest.objects.all()] == [KEY["Idempotency-Key"]]


def test_old_answers_are_forgotten_by_the_clock(api: Api, technologist: User) -> None:
    client = api(technologist)
    client.post(CASES, {}, headers=KEY)
    client.post(CASES, {}, headers={"Idempotency-Key": "younger"})
    old = IdempotentRequest.objects.filter(key=KEY["Idempotency-Key"])
    old.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert tasks.forget_idempotent_requests() == 1
    assert [row.key for row in IdempotentRequest.objects.all()] == ["younger"]


def test_key_of_a_request_that_died_is_free_again_after_a_minute(api: Api, technologist: User) -> None:
    client = api(technologist)
    client.post(CASES, {}, headers=KEY)
    Case.objects.all().delete()
    died = IdempotentRequest.objects.all()
    died.update(status_code=None, expires_at=timezone.now() + timedelta(seconds=30))

    waiting = client.post(CASES, {}, headers=KEY)
    died.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert (waiting.status_code, body_of(waiting)["code"]) == (409, "in_progress")
    assert int(waiting["Retry-After"]) >= 1
    assert client.post(CASES, {}, headers=KEY).status_code == 201
    assert Case.objects.count() == 1


def test_request_that_lost_its_claim_has_no_effect(
    api: Api, technologist: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = services.open_case

    def slow(**fields: Any) -> Case:
        IdempotentRequest.objects.all().delete()
        return real(**fields)

    monkeypatch.setattr(services, "open_case", slow)
    late = api(technologist).post(CASES, {}, headers=KEY)

    assert (late.status_code, body_of(late)["code"]) == (409, "in_progress")
    assert not Case.objects.exists()


# --- Secrets ---------------------------------------------------------------------------------------------------


class MakesSecret(APIView):
    verb = Verb.SEE

    def post(self, request: Request) -> Response:
        return Response({"id": 1, "secret": "s3cr3t-text"}, status=201)


urlpatterns = [path("api/v1/secret/", MakesSecret.as_view())]
honour_keys(urlpatterns)


@pytest.mark.urls("tests.test_idempotency")
def test_answer_with_a_secret_is_neither_kept_nor_repeated(api: Api, technologist: User) -> None:
    client = api(technologist)

    first = client.post("/api/v1/secret/", {}, headers=KEY)
    again = client.post("/api/v1/secret/", {}, headers=KEY)

    assert (first.status_code, body_of(first)["secret"]) == (201, "s3cr3t-text")
    assert (again.status_code, body_of(again)["code"]) == (409, "secret_not_repeated")
    assert "s3cr3t-text" not in str(IdempotentRequest.objects.values().get())


def test_honouring_keys_twice_wraps_once() -> None:
    before = MakesSecret.post
    honour_keys(urlpatterns)

    assert MakesSecret.post is before


# --- At the same moment ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_many_at_once_make_one_case_and_none_sees_another_answer() -> None:
    laboratory = Laboratory.objects.create(name="Northside")
    technologist = person("tess@north.example", "Tess", laboratory, Role.TECHNOLOGIST)
    from accounts.tokens import create_token

    token = create_token(user=technologist)
    start, answers = threading.Barrier(8), []

    def call() -> None:
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
        start.wait()
        try:
            answers.append(client.post(CASES, {"specimen": "EDTA"}, headers=KEY))
        finally:
            connection.close()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 8
    done = [answer for answer in answers if answer.status_code == 201]
    others = {body_of(answer)["code"] for answer in answers if answer.status_code != 201}
    assert len({answer.content for answer in done}) == 1
    assert others <= {"in_progress"}
    assert Case.objects.count() == 1
    assert [row.status_code for row in IdempotentRequest.objects.all()] == [201]


@pytest.mark.django_db(transaction=True)
def test_second_one_meets_the_claim_while_the_first_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    laboratory = Laboratory.objects.create(name="Northside")
    technologist = person("tess@north.example", "Tess", laboratory, Role.TECHNOLOGIST)
    session = APIClient()
    session.force_login(technologist)
    other = APIClient()
    other.cookies = session.cookies
    inside, go_on, real = threading.Event(), threading.Event(), services.open_case

    def held(**fields: Any) -> Case:
        inside.set()
        go_on.wait(10)
        return real(**fields)

    monkeypatch.setattr(services, "open_case", held)
    first: list[Any] = []

    def call() -> None:
        try:
            first.append(session.post(CASES, {}, headers=KEY))
        finally:
            connection.close()

    thread = threading.Thread(target=call)
    thread.start()
    assert inside.wait(10)
    met = other.post(CASES, {}, headers=KEY)
    go_on.set()
    thread.join()

    assert (met.status_code, body_of(met)["code"]) == (409, "in_progress")
    assert first[0].status_code == 201
    assert other.post(CASES, {}, headers=KEY).content == first[0].content
    assert Case.objects.count() == 1


@pytest.mark.parametrize("door", ["image", "archive"])
def test_effect_that_is_undone_after_its_handler_leaves_no_file(
    api: Api, technologist: User, case: Case, settings: Any, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    client = api(technologist)
    url = f"/api/v1/cases/{case.pk}/images/" if door == "image" else "/api/v1/batches/"
    stored: list[list[Path]] = []

    def lost(*_: Any) -> bool:
        stored.append(stored_files(settings))
        raise Conflict("in_progress", "Another request with the same key has taken over.")

    def send() -> Any:
        sent = {
            "image": {"file": SimpleUploadedFile("cell.jpg", jpeg_of_cell(1))},
            "archive": {"archive": SimpleUploadedFile("cells.zip", zip_of(cells(1)))},
        }
        return client.post(url, sent[door], format="multipart", headers=KEY)

    monkeypatch.setattr(idempotency, "keep", lost)
    assert send().status_code == 409
    assert len(stored[0]) == 1, "nothing was stored, so this would prove nothing"
    assert stored_files(settings) == []
    assert not CellImage.objects.exists()

    monkeypatch.undo()
    assert send().status_code == 202
    assert len(stored_files(settings)) == 1


def test_picture_that_is_given_back_and_undone_leaves_the_image_as_it_was(
    api: Api, make_image: Callable[..., CellImage], technologist: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image("failed", content=jpeg_of_cell(1), failure_code="unreadable_image")
    thumbnails.store(image, b"thumbnail")
    before = stored_files(settings)

    def lost(*_: Any) -> bool:
        raise Conflict("in_progress", "Another request with the same key has taken over.")

    monkeypatch.setattr(idempotency, "keep", lost)
    body = {"file": SimpleUploadedFile("cell.jpg", jpeg_of_cell(1))}
    url = f"/api/v1/cases/{image.case_id}/images/"
    assert api(technologist).post(url, body, format="multipart", headers=KEY).status_code == 409

    image.refresh_from_db()
    assert image.status == "failed"
    assert stored_files(settings) == before
    assert Path(image.file.path) in before


def test_files_stay_where_nobody_knows_whether_their_rows_do(
    api: Api, technologist: User, case: Case, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> bool:
        raise OperationalError

    monkeypatch.setattr(idempotency, "keep", gone)
    client = api(technologist)
    client.raise_request_exception = False
    body = {"file": SimpleUploadedFile("cell.jpg", jpeg_of_cell(1))}

    assert client.post(f"/api/v1/cases/{case.pk}/images/", body, format="multipart", headers=KEY).status_code >= 500
    assert len(stored_files(settings)) == 1
