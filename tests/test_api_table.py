"""Every address of the API, every method, every role, every scope, the own laboratory and another one."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import Laboratory, User
from accounts.roles import ROLE_VERBS, SCOPE_VERBS, Role, Scope, Verb, scopes_of_role
from accounts.tokens import create_token
from classifier import services
from classifier.api.urls import urlpatterns
from classifier.laboratory_settings import start_cell_types
from classifier.models import (
    Batch,
    Case,
    CellImage,
    ModelTrial,
    ModelVersion,
    Notification,
    NotificationKind,
    WebhookEvent,
    WebhookMessage,
)
from tests.conftest import PASSWORD, person
from tests.factories import image_in_state
from tests.pictures import jpeg_of_cell
from tests.signing import ready_to_sign

World = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
PUBLIC = {"api-schema", "api-docs"}


@dataclass(frozen=True)
class Call:
    """What an address needs. `about` names the things of the world in the address; without any, it is a list."""

    verb: Verb
    status: int
    about: tuple[str, ...] = ()
    body: Any = None
    form: bool = False
    # Of the platform, not of a laboratory: a stranger sees it as well.
    shared: bool = False
    # Another verb that is as good.
    also: Verb | None = None
    # Of one person: for everybody else of the laboratory it is not there.
    only: Role | None = None

    def allows(self, verbs: frozenset[Verb]) -> bool:
        return not verbs.isdisjoint({self.verb, self.also})


def picture() -> dict[str, SimpleUploadedFile]:
    return {"file": SimpleUploadedFile("cell.jpg", jpeg_of_cell(77))}


def archive() -> dict[str, SimpleUploadedFile]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as writer:
        writer.writestr("cell.jpg", jpeg_of_cell(78))
    return {"archive": SimpleUploadedFile("cells.zip", packed.getvalue())}


def settings_body() -> dict[str, Any]:
    policies = {"target_count": 200, "uploader_may_release": True, "abstain_below": None, "time_zone": "UTC"}
    return {**policies, "cell_types": start_cell_types()}


SEE, UPLOAD, REVIEW, RELEASE, ADMINISTER = Verb.SEE, Verb.UPLOAD, Verb.REVIEW, Verb.RELEASE, Verb.ADMINISTER
WHY = {"reason": "Wrong tube."}
HOOK: dict[str, Any] = {"url": "https://lis.example/hook", "events": ["image.classified"]}
TRIED = UUID("0c1de1f2-6d4c-4c1f-9f4e-0d6f2f1b7a11")
TABLE: dict[tuple[str, str], Call] = {
    ("api-cases", "get"): Call(SEE, 200),
    ("api-cases", "post"): Call(UPLOAD, 201, body={}),
    ("api-case-search", "post"): Call(SEE, 200, body={"accession_number": "A-1001"}),
    ("api-case", "get"): Call(SEE, 200, ("case",)),
    ("api-case", "patch"): Call(UPLOAD, 200, ("case",), {"specimen": "capillary"}),
    ("api-case-assign", "post"): Call(UPLOAD, 200, ("case",), {"reader": None}),
    ("api-case-void", "post"): Call(RELEASE, 201, ("case",), WHY),
    ("api-case-hold", "get"): Call(SEE, 200, ("case",)),
    ("api-case-hold", "post"): Call(ADMINISTER, 201, ("case",), WHY),
    ("api-case-hold-lift", "post"): Call(ADMINISTER, 201, ("ready",), WHY),
    ("api-case-images", "get"): Call(SEE, 200, ("case",)),
    ("api-case-images", "post"): Call(UPLOAD, 202, ("case",), picture, form=True),
    ("api-case-differential", "get"): Call(SEE, 200, ("case",)),
    ("api-case-reports", "get"): Call(SEE, 200, ("signed",)),
    ("api-case-reports", "post"): Call(RELEASE, 201, ("ready",), {"password": PASSWORD}),
    ("api-case-draft-fhir", "get"): Call(SEE, 200, ("ready",)),
    ("api-case-amendments", "post"): Call(RELEASE, 201, ("signed",), {"kind": "corrected", **WHY}),
    ("api-images", "get"): Call(SEE, 200),
    ("api-image", "get"): Call(SEE, 200, ("failed",)),
    ("api-image-file", "get"): Call(SEE, 200, ("failed",)),
    ("api-image-void", "post"): Call(RELEASE, 201, ("failed",), WHY),
    ("api-image-reviews", "get"): Call(SEE, 200, ("failed",)),
    ("api-image-reviews", "post"): Call(REVIEW, 201, ("failed",), {"verdict": "MANUAL", "final_label": "basophil"}),
    ("api-image-requeue", "post"): Call(UPLOAD, 202, ("failed",)),
    ("api-report", "get"): Call(SEE, 200, ("report",)),
    ("api-report-pdf", "get"): Call(SEE, 200, ("report",)),
    ("api-report-fhir", "get"): Call(SEE, 200, ("report",)),
    ("api-report-csv", "get"): Call(SEE, 200, ("report",)),
    ("api-report-cells", "get"): Call(SEE, 200, ("report",)),
    ("api-batches", "get"): Call(SEE, 200),
    ("api-batches", "post"): Call(UPLOAD, 202, body=archive, form=True),
    ("api-batch", "get"): Call(SEE, 200, ("batch",)),
    ("api-batch-start", "post"): Call(UPLOAD, 200, ("checked",)),
    ("api-batch-pause", "post"): Call(UPLOAD, 200, ("batch",)),
    ("api-batch-resume", "post"): Call(UPLOAD, 200, ("paused",)),
    ("api-batch-cancel", "post"): Call(UPLOAD, 200, ("batch",)),
    ("api-batch-retry-failed", "post"): Call(UPLOAD, 200, ("failing",)),
    ("api-batch-results", "get"): Call(SEE, 200, ("batch",)),
    ("api-webhooks", "get"): Call(ADMINISTER, 200),
    ("api-webhooks", "post"): Call(ADMINISTER, 201, body=HOOK),
    ("api-webhook", "get"): Call(ADMINISTER, 200, ("webhook",)),
    ("api-webhook", "delete"): Call(ADMINISTER, 204, ("webhook",)),
    ("api-webhook-secret", "post"): Call(ADMINISTER, 201, ("webhook",)),
    ("api-webhook-test", "post"): Call(ADMINISTER, 202, ("webhook",)),
    ("api-webhook-send-now", "post"): Call(ADMINISTER, 202, ("webhook",)),
    ("api-webhook-messages", "get"): Call(ADMINISTER, 200, ("webhook",)),
    ("api-webhook-replay", "post"): Call(ADMINISTER, 202, ("webhook", "message")),
    ("api-notifications", "get"): Call(SEE, 200),
    ("api-notification-read", "post"): Call(SEE, 200, ("notification",), only=Role.TECHNOLOGIST),
    ("api-case-trials", "get"): Call(SEE, 200, ("ready",)),
    ("api-case-trials", "post"): Call(RELEASE, 202, ("ready",), {"model_version": str(TRIED)}, also=ADMINISTER),
    ("api-trial", "get"): Call(SEE, 200, ("trial",)),
    ("api-laboratory-settings", "get"): Call(SEE, 200),
    ("api-laboratory-settings", "post"): Call(ADMINISTER, 201, body=settings_body),
    ("api-reviewers", "get"): Call(SEE, 200),
    ("api-cell-types", "get"): Call(SEE, 200),
    ("api-models", "get"): Call(SEE, 200),
    ("api-model", "get"): Call(SEE, 200, ("model",), shared=True),
}


@pytest.fixture
def world(case: Case, technologist: User, reader: User, lab_admin: User, model_version: ModelVersion) -> World:
    """One of everything, in the state in which each call succeeds."""
    ready = services.open_case(actor=technologist)
    ready_to_sign(ready, technologist=technologist, model_version=model_version)
    services.place_hold(actor=lab_admin, case=ready, reason="A lawsuit")
    signed = services.open_case(actor=technologist)
    image = image_in_state("failed", case=signed, uploaded_by=technologist)
    services.review_image(actor=reader, image=image, verdict="MANUAL", final_label="lymphocyte")
    report = services.release_report(actor=reader, case=signed, password=PASSWORD)
    webhook, _ = services.add_endpoint(actor=lab_admin, url=HOOK["url"], events=[WebhookEvent.IMAGE_CLASSIFIED])
    now = timezone.now()
    message = services.send_test_message(actor=lab_admin, endpoint=webhook)
    WebhookMessage.objects.filter(pk=message.pk).update(delivered_at=now, next_try_at=None)
    usual = {"laboratory": case.laboratory, "case": case, "submitted_by": technologist, "checked_at": now}
    failing = Batch.objects.create(**usual, started_at=now)
    image_in_state("failed", case=case, uploaded_by=technologist, batch=failing)
    tried = ModelVersion.objects.create(
        pk=TRIED, name="tried", version="1", sha256="0" * 64, labels=["neutrophil"], preprocessing_version="1"
    )
    return {
        "trial": ModelTrial.objects.create(case=signed, model_version=tried, requested_by=reader),
        "notification": Notification.objects.create(user=technologist, kind=NotificationKind.CASE_ASSIGNED, case=case),
        "batch": Batch.objects.create(**usual, started_at=now),
        "checked": Batch.objects.create(**usual, asks_before_start=True),
        "paused": Batch.objects.create(**usual, started_at=now, paused_at=now),
        "failing": failing,
        "case": case,
        "ready": ready,
        "signed": signed,
        "failed": image_in_state("failed", case=case, uploaded_by=technologist),
        "report": report,
        "webhook": webhook,
        "message": message,
        "model": model_version,
    }


@dataclass
class Caller:
    """Somebody with a client, and whether it may do what is asked."""

    name: str
    role: str
    client: APIClient = field(repr=False)
    verbs: frozenset[Verb] = frozenset()


def callers(people: list[User]) -> list[Caller]:
    """Each person with every scope of the role, and with each single one."""
    found = []
    for one in people:
        offered = scopes_of_role(one.role)
        for scopes in (offered, *([scope] for scope in offered)):
            client = APIClient()
            client.credentials(HTTP_AUTHORIZATION=f"Token {create_token(user=one, scopes=scopes)}")
            within = frozenset(verb for scope in scopes for verb in SCOPE_VERBS[Scope(scope)])
            found.append(Caller(f"{one.role} with {'+'.join(scopes)}", one.role, client, within & ROLE_VERBS[one.role]))
    return found


def status_of(client: APIClient, name: str, method: str, call: Call, world: World) -> int:
    """What the call answers; nothing of it stays."""
    url = reverse(name, args=[world[thing].pk for thing in call.about])
    body = call.body() if callable(call.body) else call.body
    with transaction.atomic():
        response = getattr(client, method)(url, body, format="multipart" if call.form else None)
        status: int = response.status_code
        transaction.set_rollback(True)
    return status


def everything() -> list[tuple[str, str]]:
    """What the URL conf answers."""
    views = {str(pattern.name): pattern.callback.cls for pattern in urlpatterns}
    return [(name, method) for name, view in views.items() for method in METHODS if hasattr(view, method)]


CALLS = sorted(call for call in everything() if call[0] not in PUBLIC)


def test_every_address_and_method_is_in_the_table() -> None:
    assert sorted(TABLE) == CALLS


def test_every_post_honours_idempotency_keys() -> None:
    posting = [pattern.callback.cls for pattern in urlpatterns if hasattr(pattern.callback.cls, "post")]

    assert posting
    assert all(view.post.answers_once for view in posting)


# One world for a whole walk: nothing of a call stays, so the next one meets what the first one met.
def test_own_laboratory_by_role_and_scope(
    world: World, technologist: User, reader: User, auditor: User, lab_admin: User, service_account: User
) -> None:
    people = callers([technologist, reader, auditor, lab_admin, service_account])
    wrong = {}
    for name, method in CALLS:
        call = TABLE[name, method]
        for caller in people:
            there = call.status if call.only in (None, caller.role) else 404
            expected = there if call.allows(caller.verbs) else 403
            status = status_of(caller.client, name, method, call, world)
            if status != expected:
                wrong[name, method, caller.name] = (status, expected)
    assert wrong == {}


def test_other_laboratory_nobody_and_operator(world: World, other_laboratory: Laboratory, operator: User) -> None:
    strangers = {role: callers([person(f"{role}@south.example", "Stan", other_laboratory, role)]) for role in Role}
    nobody, runs_the_platform = APIClient(), APIClient()
    runs_the_platform.force_authenticate(operator)
    wrong = {}
    for name, method in CALLS:
        call = TABLE[name, method]
        elsewhere = 404 if call.about and not call.shared else call.status
        able = strangers[next(role for role in Role if call.verb in ROLE_VERBS[role])]
        asked = [(caller.name, caller.client, elsewhere if call.allows(caller.verbs) else 403) for caller in able]
        for who, client, expected in [*asked, ("nobody", nobody, 401), ("the operator", runs_the_platform, 403)]:
            status = status_of(client, name, method, call, world)
            if status != expected:
                wrong[name, method, who] = (status, expected)
    assert wrong == {}


def test_lists_of_another_laboratory_hold_nothing_of_this_one(world: World, stranger: User, technologist: User) -> None:
    User.objects.filter(pk=stranger.pk).update(role=Role.ADMIN)
    stranger.refresh_from_db()
    client = callers([stranger])[0].client
    own = {str(world[thing].pk) for thing in set(world) - {"model"}} | {str(technologist.pk)}
    own.add(world["case"].accession_number)
    lists = [name for name, method in CALLS if method == "get" and not TABLE[name, method].about]

    told = {name: client.get(reverse(name)).content.decode() for name in lists}

    assert len(told) > 5
    assert [(name, word) for name, text in told.items() for word in own if word in text] == []


def test_search_finds_nothing_in_another_laboratory(
    world: World, stranger: User, api: Callable[..., APIClient]
) -> None:
    wanted = {"accession_number": world["case"].accession_number}

    assert api(stranger).post("/api/v1/cases/search/", wanted).json()["results"] == []


def test_nothing_was_left_behind_by_a_call(world: World, api: Callable[..., APIClient], technologist: User) -> None:
    """The table would be worthless if one call could spoil the next."""
    before = CellImage.objects.count()

    status_of(api(technologist), "api-case-images", "post", TABLE["api-case-images", "post"], world)

    assert CellImage.objects.count() == before
