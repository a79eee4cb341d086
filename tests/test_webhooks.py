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
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import Role
from classifier import pipeline, services, webhooks
from classifier.errors import Conflict, HematoVisionError, InvalidInput, NotAllowed
from classifier.models import (
    Case,
    CellImage,
    ModelVersion,
    WebhookEndpoint,
    WebhookEvent,
    WebhookMessage,
)
from classifier.secret_text import SecretUnreadable, decrypt, encrypt
from classifier.services.webhooks import CHOICES, MOST_ENDPOINTS
from classifier.webhook_request import signature
from classifier.webhook_sending import envelope
from classifier.webhooks import announce
from tests.conftest import PASSWORD, person
from tests.signing import ready_to_sign

MakeImage = Callable[..., CellImage]
SignIn = Callable[[User], Client]
Api = Callable[..., APIClient]
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


def refused(act: Callable[[], object], error: type[HematoVisionError], code: str) -> HematoVisionError:
    with pytest.raises(error) as caught:
        act()
    assert caught.value.code == code
    return caught.value


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
    monkeypatch.setattr(pipeline, "prepare", lambda image, predictor: RuntimeError("boom"))
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


# --- Setting it up ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor", "service_account", "operator"])
def test_only_an_administrator_sets_anything_up(
    who: str, endpoint: WebhookEndpoint, request: pytest.FixtureRequest
) -> None:
    actor = request.getfixturevalue(who)
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    for act in (
        lambda: services.add_endpoint(actor=actor, url=URL, events=CHOICES),
        lambda: services.rotate_secret(actor=actor, endpoint=endpoint),
        lambda: services.switch_off_endpoint(actor=actor, endpoint=endpoint),
        lambda: services.send_test_message(actor=actor, endpoint=endpoint),
        lambda: services.send_now(actor=actor, endpoint=endpoint),
        lambda: services.replay_message(actor=actor, message=message),
    ):
        refused(act, NotAllowed, "not_allowed")


def test_administrator_of_another_laboratory_changes_nothing(endpoint: WebhookEndpoint, other_admin: User) -> None:
    for act in (services.rotate_secret, services.switch_off_endpoint, services.send_test_message, services.send_now):
        refused(lambda act=act: act(actor=other_admin, endpoint=endpoint), NotAllowed, "not_allowed")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("events", "code"),
    [([], "events_missing"), (["image.eaten"], "unknown_event"), (["webhook.test"], "unknown_event")],
)
def test_events_are_those_of_the_list(lab_admin: User, events: list[str], code: str) -> None:
    refused(lambda: services.add_endpoint(actor=lab_admin, url=URL, events=events), InvalidInput, code)
    assert not WebhookEndpoint.objects.exists()


def test_endpoints_of_a_laboratory_are_few(lab_admin: User) -> None:
    for _ in range(MOST_ENDPOINTS):
        last = added(lab_admin)
    refused(lambda: added(lab_admin), Conflict, "too_many_endpoints")
    services.switch_off_endpoint(actor=lab_admin, endpoint=last)
    added(lab_admin)


def test_every_act_is_in_the_trail(lab_admin: User, laboratory: Laboratory) -> None:
    endpoint = added(lab_admin, "report.released")
    services.rotate_secret(actor=lab_admin, endpoint=endpoint)
    message = services.send_test_message(actor=lab_admin, endpoint=endpoint)
    services.send_now(actor=lab_admin, endpoint=endpoint)
    WebhookMessage.objects.update(next_try_at=None)
    again = services.replay_message(actor=lab_admin, message=message)
    services.switch_off_endpoint(actor=lab_admin, endpoint=endpoint)
    trail = AuditEvent.objects.filter(target_id=str(endpoint.pk)).order_by("at")
    assert [(event.action, event.actor, event.laboratory, event.facts) for event in trail] == [
        (action, lab_admin, laboratory, facts)
        for action, facts in [
            ("webhook_endpoint_added", {"events": ["report.released"]}),
            ("webhook_secret_rotated", {}),
            ("webhook_test_sent", {"message": str(message.pk)}),
            ("webhook_sent_now", {"messages": 1}),
            ("webhook_replayed", {"message": str(again.pk), "of": str(message.pk)}),
            ("webhook_endpoint_switched_off", {"messages": 1}),
        ]
    ]


def test_replay_is_a_new_message_of_the_same_content(lab_admin: User, endpoint: WebhookEndpoint) -> None:
    announce(endpoint.laboratory_id, WebhookEvent.BATCH_FINISHED, {"batch": "b"})
    first = WebhookMessage.objects.get()
    refused(lambda: services.replay_message(actor=lab_admin, message=first), Conflict, "not_sent_yet")
    WebhookMessage.objects.update(next_try_at=None, delivered_at=timezone.now())
    again = services.replay_message(actor=lab_admin, message=first)
    assert again.pk != first.pk
    assert (again.event, again.content, again.replay_of, again.state) == (
        "batch.finished",
        {"batch": "b"},
        first,
        "waiting",
    )
    assert envelope(again)["replay_of"] == str(first.pk)


def test_endpoint_that_is_switched_off_takes_nothing_more(lab_admin: User, endpoint: WebhookEndpoint) -> None:
    message = services.send_test_message(actor=lab_admin, endpoint=endpoint)
    services.switch_off_endpoint(actor=lab_admin, endpoint=endpoint)
    message.refresh_from_db()
    assert (message.state, message.last_code) == ("given_up", "switched_off")
    for act in (services.rotate_secret, services.switch_off_endpoint, services.send_test_message, services.send_now):
        refused(lambda act=act: act(actor=lab_admin, endpoint=endpoint), Conflict, "switched_off")  # type: ignore[misc]
    refused(lambda: services.replay_message(actor=lab_admin, message=message), Conflict, "switched_off")


def test_waiting_messages_are_due_at_once_when_somebody_says_so(lab_admin: User, endpoint: WebhookEndpoint) -> None:
    message = services.send_test_message(actor=lab_admin, endpoint=endpoint)
    WebhookMessage.objects.update(next_try_at=timezone.now() + timedelta(hours=6))
    assert services.send_now(actor=lab_admin, endpoint=endpoint) == 1
    message.refresh_from_db()
    assert message.next_try_at is not None
    assert message.next_try_at <= timezone.now() + timedelta(seconds=1)


# --- Pages -----------------------------------------------------------------------------------------------------------


def secret_on(page: str) -> str:
    found = re.search(r'value="(hvs_[^"]+)"', page)
    assert found
    return found[1]


def test_administrator_adds_an_address_and_sees_the_secret_once(lab_admin: User, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    page = client.get("/webhooks/").content.decode()
    assert "Nobody is told yet" in page
    form = {"url": f" {URL} ", "events": ["report.released", "image.failed"], "endpoint": str(uuid4())}
    answer = client.post("/webhooks/", form)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.url, endpoint.events) == (URL, ["image.failed", "report.released"])
    assert decrypt(endpoint.secret) == secret_on(answer.content.decode())
    for path in ("/webhooks/", f"/webhooks/{endpoint.pk}/"):
        later = client.get(path).content.decode()
        assert "hvs_" not in later
        assert endpoint.secret not in later
        assert "Report released" in later


def test_form_that_is_sent_twice_adds_one_endpoint(lab_admin: User, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    form = {"url": URL, "events": ["report.released"], "endpoint": str(uuid4())}
    client.post("/webhooks/", form)
    again = client.post("/webhooks/", form, follow=True)
    assert WebhookEndpoint.objects.count() == 1
    assert "This endpoint is there already" in again.content.decode()


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"url": "", "events": ["report.released"]}, "Enter the address that messages are sent to."),
        ({"url": "http://lis.example.org/", "events": ["report.released"]}, "Messages go over https only."),
        ({"url": "https://10.0.0.1/", "events": ["report.released"]}, "private or reserved addresses"),
        ({"url": URL}, "Choose at least one event"),
        ({"url": URL, "events": ["image.eaten"]}, "There is no event"),
        ({"url": URL, "events": ["report.released"], "endpoint": "no id"}, ""),
    ],
)
def test_what_can_not_be_used_is_said_and_what_was_typed_is_kept(
    lab_admin: User, sign_in: SignIn, form: dict[str, Any], sentence: str
) -> None:
    answer = sign_in(lab_admin).post("/webhooks/", form)
    if not sentence:
        assert WebhookEndpoint.objects.count() == 1
        return
    page = answer.content.decode()
    assert answer.status_code == 400
    assert sentence in page
    assert form["url"] in page
    assert not WebhookEndpoint.objects.exists()


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor"])
def test_pages_are_the_administrators(
    who: str, endpoint: WebhookEndpoint, sign_in: SignIn, request: pytest.FixtureRequest
) -> None:
    client = sign_in(request.getfixturevalue(who))
    assert client.get("/webhooks/").status_code == 403
    assert client.post("/webhooks/", {"url": URL}).status_code == 403
    assert client.get(f"/webhooks/{endpoint.pk}/").status_code == 403
    for act in ("test", "secret", "switch-off", "send-now"):
        assert client.post(f"/webhooks/{endpoint.pk}/{act}/").status_code == 403


def test_stranger_finds_nothing(endpoint: WebhookEndpoint, stranger: User, other_admin: User, sign_in: SignIn) -> None:
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    for user in (stranger, other_admin):
        client = sign_in(user)
        assert client.get(f"/webhooks/{endpoint.pk}/").status_code == 404
        for act in ("test", "secret", "switch-off", "send-now", f"messages/{message.pk}/replay"):
            assert client.post(f"/webhooks/{endpoint.pk}/{act}/").status_code == 404
    assert URL not in sign_in(other_admin).get("/webhooks/").content.decode()


def test_operator_has_no_webhooks(operator: User, sign_in: SignIn) -> None:
    assert sign_in(operator).get("/webhooks/").status_code == 403


def test_page_tells_what_became_of_each_message(lab_admin: User, endpoint: WebhookEndpoint, sign_in: SignIn) -> None:
    now = timezone.now()
    states: list[dict[str, Any]] = [
        {"next_try_at": now},
        {"next_try_at": now, "tries": 2, "last_code": "not_acknowledged", "last_status": 503},
        {"tries": 17, "last_code": "timed_out"},
        {"tries": 1, "delivered_at": now, "last_status": 204},
    ]
    for state in states:
        WebhookMessage.objects.create(endpoint=endpoint, event="report.released", content={}, **state)
    page = sign_in(lab_admin).get(f"/webhooks/{endpoint.pk}/").content.decode()
    for sentence in (
        "Not tried yet: it goes after what waits before it.",
        "The receiver answered 503; it should be 200 to 299.",
        "Next try:",
        "The receiver did not answer in time.",
        "Answered 204",
        "Given up",
        "Try what waits now",
    ):
        assert sentence in page
    assert page.count(">Replay<span") == 2


def test_buttons_of_the_page_do_what_they_say(lab_admin: User, endpoint: WebhookEndpoint, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    base = f"/webhooks/{endpoint.pk}/"
    assert "A test message is on its way" in client.post(f"{base}test/", follow=True).content.decode()
    assert "What waits is tried now" in client.post(f"{base}send-now/", follow=True).content.decode()
    message = WebhookMessage.objects.get()
    replay = f"{base}messages/{message.pk}/replay/"
    assert "still waits" in client.post(replay, follow=True).content.decode()
    WebhookMessage.objects.update(next_try_at=None)
    assert "sent once more" in client.post(replay, follow=True).content.decode()
    rotated = client.post(f"{base}secret/")
    endpoint.refresh_from_db()
    assert decrypt(endpoint.secret) == secret_on(rotated.content.decode())
    assert "The one before signs until" in client.get(base).content.decode()
    assert "switched off" in client.post(f"{base}switch-off/", follow=True).content.decode()
    off = client.get(base).content.decode()
    assert "Send a test message" not in off
    assert ">Replay<span" not in off
    for act in ("test/", "send-now/", "secret/", "switch-off/"):
        assert "This endpoint is switched off." in client.post(base + act, follow=True).content.decode()


def test_link_to_a_form_leads_to_its_page(lab_admin: User, endpoint: WebhookEndpoint, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    for act in ("test", "secret", "switch-off", "send-now", f"messages/{message.pk}/replay"):
        assert client.get(f"/webhooks/{endpoint.pk}/{act}/")["Location"] == f"/webhooks/{endpoint.pk}/"
    assert WebhookEndpoint.objects.get().active


@pytest.mark.parametrize("count", [1, 60])
def test_pages_are_read_in_a_fixed_number_of_queries(
    lab_admin: User,
    endpoint: WebhookEndpoint,
    sign_in: SignIn,
    count: int,
    django_assert_num_queries: Any,
) -> None:
    WebhookMessage.objects.bulk_create(
        WebhookMessage(endpoint=endpoint, event="webhook.test", content={}, next_try_at=timezone.now())
        for _ in range(count)
    )
    client = sign_in(lab_admin)
    with django_assert_num_queries(5):
        assert f">{count}<" in client.get("/webhooks/").content.decode()
    with django_assert_num_queries(7):
        client.get(f"/webhooks/{endpoint.pk}/")


# --- API -------------------------------------------------------------------------------------------------------------


def test_client_walks_through_all_of_it(lab_admin: User, api: Api) -> None:
    client = api(lab_admin, ("read", "admin"))
    made = client.post("/api/v1/webhooks/", {"url": URL, "events": ["report.released"]})
    assert made.status_code == 201
    body = made.json()
    address = f"/api/v1/webhooks/{body['id']}/"
    assert made["Location"].endswith(address)
    assert decrypt(WebhookEndpoint.objects.get().secret) == body.pop("secret")
    assert client.get(address).json() == body
    assert client.get("/api/v1/webhooks/").json() == {"next": None, "previous": None, "results": [body]}
    assert set(body) == {"id", "url", "events", "active", "made_at", "previous_secret_until"}
    assert (body["url"], body["events"], body["active"], body["previous_secret_until"]) == (
        URL,
        ["report.released"],
        True,
        None,
    )

    rotated = client.post(f"{address}secret/")
    assert rotated.status_code == 201
    assert decrypt(WebhookEndpoint.objects.get().secret) == rotated.json()["secret"]
    assert rotated.json()["previous_secret_until"] is not None

    sent = client.post(f"{address}test/")
    assert (sent.status_code, sent.json()["state"], sent.json()["event"]) == (202, "waiting", "webhook.test")
    assert client.post(f"{address}send-now/").json() == {"messages": 1}
    replay = f"{address}messages/{sent.json()['id']}/replay/"
    assert (client.post(replay).status_code, client.post(replay).json()["code"]) == (409, "not_sent_yet")
    WebhookMessage.objects.update(next_try_at=None, tries=17, last_code="not_acknowledged", last_status=503)
    again = client.post(replay)
    assert (again.status_code, again.json()["replay_of"]) == (202, sent.json()["id"])

    listed = client.get(f"{address}messages/").json()["results"]
    assert [one["id"] for one in listed] == [again.json()["id"], sent.json()["id"]]
    assert {name: listed[1][name] for name in ("state", "tries", "last_status", "last_code", "last_outcome")} == {
        "state": "given_up",
        "tries": 17,
        "last_status": 503,
        "last_code": "not_acknowledged",
        "last_outcome": "The receiver answered 503; it should be 200 to 299.",
    }
    assert listed[0]["last_code"] is None

    assert client.delete(address).status_code == 204
    assert client.get(address).json()["active"] is False
    assert client.delete(address).json()["code"] == "switched_off"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "http://lis.example.org/", "events": ["report.released"]}, "url_scheme"),
        ({"url": "https://127.0.0.1/", "events": ["report.released"]}, "url_address_refused"),
        ({"url": URL, "events": []}, "invalid_input"),
        ({"url": URL, "events": ["image.eaten"]}, "invalid_input"),
        ({"url": URL, "events": "report.released"}, "invalid_input"),
        ({"url": URL}, "invalid_input"),
        ({"url": URL, "events": ["report.released"], "secret": "mine"}, "unknown_field"),
        ({"events": ["report.released"]}, "invalid_input"),
        ({}, "invalid_input"),
    ],
)
def test_bad_request_is_a_problem_with_its_code(lab_admin: User, api: Api, body: dict[str, Any], code: str) -> None:
    answer = api(lab_admin).post("/api/v1/webhooks/", body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert not WebhookEndpoint.objects.exists()


def test_messages_are_narrowed_by_state_and_event(endpoint: WebhookEndpoint, lab_admin: User, api: Api) -> None:
    now = timezone.now()
    rows: list[tuple[str, dict[str, Any]]] = [
        ("report.released", {"next_try_at": now}),
        ("report.released", {"delivered_at": now}),
        ("image.failed", {"tries": 3}),
    ]
    for event, state in rows:
        WebhookMessage.objects.create(endpoint=endpoint, event=event, content={}, **state)
    client, path = api(lab_admin), f"/api/v1/webhooks/{endpoint.pk}/messages/"
    for name in ("waiting", "delivered", "given_up"):
        assert [one["state"] for one in client.get(path, {"state": name}).json()["results"]] == [name]
    assert len(client.get(path, {"event": "report.released"}).json()["results"]) == 2
    for wrong, code in (({"state": "lost"}, "invalid_input"), ({"color": "red"}, "unknown_filter")):
        answer = client.get(path, wrong)
        assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_key_makes_one_endpoint_and_its_secret_is_not_repeated(lab_admin: User, api: Api) -> None:
    client = api(lab_admin)
    body = {"url": URL, "events": ["report.released"]}
    first = client.post("/api/v1/webhooks/", body, headers={"Idempotency-Key": "k-1"})
    again = client.post("/api/v1/webhooks/", body, headers={"Idempotency-Key": "k-1"})
    assert first.status_code == 201
    assert (again.status_code, again.json()["code"]) == (409, "secret_not_repeated")
    assert WebhookEndpoint.objects.count() == 1


def addresses(endpoint: WebhookEndpoint, message: WebhookMessage) -> list[tuple[str, str]]:
    base = f"/api/v1/webhooks/{endpoint.pk}/"
    return [
        ("get", base),
        ("delete", base),
        ("post", f"{base}secret/"),
        ("post", f"{base}test/"),
        ("post", f"{base}send-now/"),
        ("get", f"{base}messages/"),
        ("post", f"{base}messages/{message.pk}/replay/"),
    ]


def test_api_is_for_administrators_with_the_scope(
    endpoint: WebhookEndpoint, lab_admin: User, technologist: User, service_account: User, api: Api
) -> None:
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    everything = [("get", "/api/v1/webhooks/"), ("post", "/api/v1/webhooks/"), *addresses(endpoint, message)]
    for client in (api(technologist), api(service_account), api(lab_admin, ("read",))):
        assert [getattr(client, method)(path).status_code for method, path in everything] == [403] * 9
    assert [getattr(api(None), method)(path).status_code for method, path in everything] == [401] * 9


def test_api_hides_what_belongs_to_another_laboratory(endpoint: WebhookEndpoint, other_admin: User, api: Api) -> None:
    message = WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={})
    client = api(other_admin)
    assert {getattr(client, method)(path).status_code for method, path in addresses(endpoint, message)} == {404}
    assert client.get("/api/v1/webhooks/").json()["results"] == []


def test_message_of_another_endpoint_is_not_replayed_below_this_one(
    endpoint: WebhookEndpoint, lab_admin: User, api: Api
) -> None:
    other = added(lab_admin)
    message = WebhookMessage.objects.create(endpoint=other, event="webhook.test", content={})
    assert api(lab_admin).post(f"/api/v1/webhooks/{endpoint.pk}/messages/{message.pk}/replay/").status_code == 404


def test_lists_of_the_api_cost_a_fixed_number_of_queries(
    endpoint: WebhookEndpoint, lab_admin: User, api: Api, django_assert_num_queries: Any
) -> None:
    WebhookMessage.objects.bulk_create(
        WebhookMessage(endpoint=endpoint, event="webhook.test", content={}) for _ in range(60)
    )
    client = api(lab_admin)
    client.get("/api/v1/webhooks/")
    with django_assert_num_queries(3):
        client.get("/api/v1/webhooks/")
    with django_assert_num_queries(4):
        assert len(client.get(f"/api/v1/webhooks/{endpoint.pk}/messages/").json()["results"]) == 50
