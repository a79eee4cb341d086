"""Who is told of what, by whom that is set up, and that nothing is said that must not be."""

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import current_app
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import Role
from accounts.secret_text import SecretUnreadable, decrypt, encrypt
from classifier import pipeline, services, webhooks
from classifier.models import (
    Case,
    CellImage,
    ModelVersion,
    WebhookEndpoint,
    WebhookEvent,
    WebhookMessage,
)
from classifier.services.webhooks import CHOICES
from classifier.webhook_request import signature
from classifier.webhook_sending import envelope
from classifier.webhooks import announce
from tests.conftest import PASSWORD, person
from tests.signing import ready_to_sign

MakeImage = Callable[..., CellImage]
URL = "https://lis.example.org/hooks?key=only-for-the-receiver"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "webhooks.md"


def added(actor: User, *events: str, url: str = URL) -> WebhookEndpoint:
    return services.add_endpoint(actor=actor, url=url, events=events or CHOICES)[0]


@pytest.fixture
def endpoint(lab_admin: User) -> WebhookEndpoint:
    return added(lab_admin)


@pytest.fixture
def other_admin(other_laboratory: Laboratory) -> User:
    return person("otis@south.example", "Otis Orr", other_laboratory, Role.ADMIN)


def told() -> list[tuple[str, Any]]:
    return [(message.event, message.content) for message in WebhookMessage.objects.order_by("at")]


# --- What is told ----------------------------------------------------------------------------------------------------


def test_classified_images_are_told_with_model_and_address(
    endpoint: WebhookEndpoint, make_image: MakeImage, model_version: ModelVersion
) -> None:
    images = [make_image(), make_image()]
    pipeline.classify_queued()
    assert told() == [
        (
            "image.classified",
            {
                "image": str(image.pk),
                "case": str(image.case_id),
                "batch": None,
                "status": "classified",
                "model": {
                    "id": str(model_version.pk),
                    "name": model_version.name,
                    "version": model_version.version,
                    "sha256": model_version.sha256,
                },
                "url": reverse("api-image", args=[image.pk]),
            },
        )
        for image in images
    ]


def failure_of(image: CellImage, code: str) -> tuple[str, Any]:
    return (
        "image.failed",
        {
            "image": str(image.pk),
            "case": str(image.case_id),
            "batch": None,
            "status": "failed",
            "failure": {"code": code},
            "url": reverse("api-image", args=[image.pk]),
        },
    )


def test_permanent_failure_is_told(
    endpoint: WebhookEndpoint, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image(stored_sha256="0" * 64)
    pipeline.classify_queued()
    assert told() == [failure_of(image, "stored_file_altered")]


def test_third_fault_is_told_and_the_first_two_are_not(
    endpoint: WebhookEndpoint, make_image: MakeImage, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image()
    monkeypatch.setattr(pipeline, "prepare", lambda *about: RuntimeError("boom"))
    for tried in range(3):
        assert told() == []
        pipeline.classify_queued()
        assert CellImage.objects.get().faults == tried + 1
    assert told() == [failure_of(image, "unreadable_image")]


def test_image_whose_worker_was_lost_too_often_is_told(endpoint: WebhookEndpoint, make_image: MakeImage) -> None:
    past = timezone.now() - timedelta(minutes=5)
    image = make_image("claimed", claimed_alone=True, faults=2, claim_expires_at=past)
    make_image("claimed", claimed_alone=True, faults=1, claim_expires_at=past)
    assert pipeline.sweep_expired_claims() == 2
    assert told() == [failure_of(image, "worker_lost")]


def test_signed_report_is_told_and_its_correction_as_such(
    endpoint: WebhookEndpoint, case: Case, technologist: User, reader: User, model_version: ModelVersion
) -> None:
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    WebhookMessage.objects.all().delete()
    first = services.release_report(actor=reader, case=case, password=PASSWORD)
    services.amend_report(actor=reader, case=case, kind="corrected", reason="Wrong slide")
    second = services.release_report(actor=reader, case=case, password=PASSWORD)
    services.amend_report(actor=reader, case=case, kind="amended", reason="A comment")
    third = services.release_report(actor=reader, case=case, password=PASSWORD)
    assert told() == [
        (
            event,
            {
                "report": str(report.pk),
                "case": str(case.pk),
                "version": version,
                "kind": kind,
                "sha256": report.sha256,
                "signed_at": report.signed_at.isoformat(),
                "url": reverse("api-report", args=[report.pk]),
            },
        )
        for version, (event, kind, report) in enumerate(
            [
                ("report.released", "released", first),
                ("report.corrected", "corrected", second),
                ("report.corrected", "amended", third),
            ],
            start=1,
        )
    ]


def test_only_those_of_the_laboratory_who_want_the_event_are_told(
    lab_admin: User, other_admin: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    wants = added(lab_admin, "image.classified")
    added(lab_admin, "image.failed")
    off = added(lab_admin)
    services.switch_off_endpoint(actor=lab_admin, endpoint=off)
    added(other_admin)
    make_image()
    pipeline.classify_queued()
    announce(lab_admin.laboratory_id, WebhookEvent.IMAGE_CLASSIFIED, {})  # type: ignore[arg-type]
    assert {message.endpoint for message in WebhookMessage.objects.all()} == {wants}
    assert WebhookMessage.objects.count() == 2


def test_nothing_is_told_of_what_is_rolled_back(endpoint: WebhookEndpoint, laboratory: Laboratory) -> None:
    with transaction.atomic():
        announce(laboratory.pk, WebhookEvent.BATCH_FINISHED, {})
        assert len(told()) == 1
        transaction.set_rollback(True)
    assert told() == []


def test_completion_whose_message_can_not_be_written_is_undone(
    endpoint: WebhookEndpoint, make_image: MakeImage, model_version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both or neither: an event that nobody is told of would be lost for ever."""
    image = make_image()

    def breaks(messages: object) -> None:
        raise OSError

    monkeypatch.setattr(webhooks, "write", breaks)
    with pytest.raises(OSError):  # noqa: PT011
        pipeline.classify_queued()
    image.refresh_from_db()
    assert image.status == "queued"
    assert not image.predictions.exists()


@pytest.mark.parametrize("count", [1, 8])
def test_without_endpoints_a_micro_batch_costs_one_small_query_more(
    make_image: MakeImage, model_version: ModelVersion, count: int, django_assert_num_queries: Any
) -> None:
    images = [make_image("classified") for _ in range(count)]
    with django_assert_num_queries(1):
        webhooks.announce_classified([image.pk for image in images], model_version)
    with django_assert_num_queries(0):
        webhooks.announce_failed([])


def test_messages_of_a_micro_batch_are_written_at_once(
    endpoint: WebhookEndpoint, make_image: MakeImage, model_version: ModelVersion, django_assert_num_queries: Any
) -> None:
    images = [make_image("classified") for _ in range(8)]
    with django_assert_num_queries(3):
        webhooks.announce_classified([image.pk for image in images], model_version)
    assert len(told()) == 8


def test_sender_is_woken_once_when_it_is_committed(
    endpoint: WebhookEndpoint,
    laboratory: Laboratory,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    woken: list[str] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, **_: woken.append(name))
    with django_capture_on_commit_callbacks(execute=True):
        announce(laboratory.pk, WebhookEvent.BATCH_FINISHED, {})
        assert woken == []
    assert woken == ["classifier.send_webhooks"]
    with django_capture_on_commit_callbacks(execute=True):
        announce(uuid4(), WebhookEvent.BATCH_FINISHED, {})
    assert len(woken) == 1


def test_broker_that_is_down_loses_no_message(
    endpoint: WebhookEndpoint, laboratory: Laboratory, redis_server: Any, django_capture_on_commit_callbacks: Any
) -> None:
    redis_server.pause()
    with django_capture_on_commit_callbacks(execute=True):
        announce(laboratory.pk, WebhookEvent.BATCH_FINISHED, {})
    assert WebhookMessage.objects.get().next_try_at is not None


def test_no_patient_text_is_told_or_written_down(
    lab_admin: User, technologist: User, reader: User, case: Case, model_version: ModelVersion, make_image: MakeImage
) -> None:
    Case.objects.update(accession_number="PHI-ACCESSION", patient_pseudonym="PHI-PSEUDONYM", specimen="PHI-SPECIMEN")
    case.refresh_from_db()
    endpoint, secret = services.add_endpoint(actor=lab_admin, url=URL, events=CHOICES)
    make_image(name="PHI-FILE.jpg")
    pipeline.classify_queued()
    for image in CellImage.objects.filter(status="classified"):
        services.review_image(
            actor=technologist, image=image, verdict="CORRECTED", final_label="neutrophil", comment="PHI-COMMENT"
        )
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    services.release_report(actor=reader, case=case, password=PASSWORD, comment="PHI-REPORT")
    services.rotate_secret(actor=lab_admin, endpoint=endpoint)
    services.send_test_message(actor=lab_admin, endpoint=endpoint)
    said = [json.dumps(envelope(message)) for message in WebhookMessage.objects.all()]
    trail = [json.dumps(event.facts) for event in AuditEvent.objects.all()]
    assert len(said) >= 3
    for text in said + trail:
        assert "PHI-" not in text
    for text in trail:
        assert secret not in text
        assert "lis.example.org" not in text


# --- Secrets ---------------------------------------------------------------------------------------------------------


def test_secret_is_random_shown_once_and_encrypted_at_rest(lab_admin: User) -> None:
    first, secret = services.add_endpoint(actor=lab_admin, url=URL, events=CHOICES)
    _, other = services.add_endpoint(actor=lab_admin, url=URL, events=CHOICES)
    assert len(secret) >= 40
    assert secret != other
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM classifier_webhookendpoint")
        assert secret not in str(cursor.fetchall())
    first.refresh_from_db()
    assert decrypt(first.secret) == secret


def test_same_text_is_encrypted_anew_each_time_and_an_altered_one_is_noticed() -> None:
    first, second = encrypt("hvs_secret"), encrypt("hvs_secret")
    assert first != second
    assert decrypt(first) == decrypt(second) == "hvs_secret"
    for altered in (first[:-2] + "AA", first[:20], "", "no token at all"):
        with pytest.raises(SecretUnreadable):
            decrypt(altered)


def test_text_of_another_instance_can_not_be_read(settings: Any) -> None:
    token = encrypt("hvs_secret")
    settings.SECRET_KEY = "another instance's key, also long enough"
    with pytest.raises(SecretUnreadable):
        decrypt(token)


def test_receiver_in_the_documentation_tells_our_messages_from_others() -> None:
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code
    documented: dict[str, Any] = {}
    exec(code[1], documented)
    is_genuine = documented["is_genuine"]
    body, now = b'{"id":"1"}', int(time.time())
    header = signature(["new", "old"], now, body)
    assert header.count("v1=") == 2
    assert is_genuine("new", header, body)
    assert is_genuine("old", header, body)
    assert not is_genuine("other", header, body)
    assert not is_genuine("new", header, body + b" ")
    assert not is_genuine("new", signature(["new"], now - 301, body), body)
    assert not is_genuine("new", header.replace(f"t={now}", f"t={now + 1}"), body)
    for nonsense in ("", "v1=abc", "t=,v1=", "t=soon,v1=x", f"t={now}", f"t={now},t={now},v1=x"):
        assert not is_genuine("new", nonsense, body)
