"""What the audit trail has: every act, every look, and what it leaves out."""

import ast
import re
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from rest_framework.test import APIClient

from accounts import audit
from accounts.admin import VerbAdmin
from accounts.audit_actions import ACTIONS
from accounts.models import AuditEvent, User
from classifier import machine_audit, pipeline
from classifier.models import Case, CellImage, ModelVersion
from tests.factories import prediction_of
from tests.test_architecture import ROOT, SOURCES

SignIn = Callable[[User], Client]
Api = Callable[..., APIClient]
MakeImage = Callable[..., CellImage]
LOOKS = ("case_viewed", "image_viewed")


def looks() -> list[tuple[str, str, Any]]:
    """The looks in the trail: action, target, and the page."""
    events = AuditEvent.objects.filter(action__in=LOOKS).order_by("at", "id")
    return [(event.action, event.target_id, event.facts["page"]) for event in events]


@pytest.fixture
def classified(make_image: MakeImage, model_version: ModelVersion) -> CellImage:
    image = make_image("classified")
    prediction_of(image, model_version)
    return image


# --- The table of actions ----------------------------------------------------------------------------------------
def actions_in_code() -> set[str]:
    """The texts that are given as `action` to whatever writes the trail."""
    found: set[str] = set()
    for path in SOURCES:
        if "accounts" not in path.parts and "classifier" not in path.parts:
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name not in {"record", "event", "record_token"}:
                continue
            for keyword in call.keywords:
                if keyword.arg == "action":
                    found |= {
                        part.value
                        for part in ast.walk(keyword.value)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    }
    return found


def test_every_action_in_the_code_is_in_the_table() -> None:
    assert actions_in_code() - set(ACTIONS) == set()


def test_every_action_in_the_table_is_in_the_code() -> None:
    code = "".join(path.read_text() for path in SOURCES if path.name != "audit_actions.py")
    assert [action for action in ACTIONS if f'"{action}"' not in code] == []


def test_every_action_is_explained() -> None:
    explained = set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs" / "audit.md").read_text(), re.MULTILINE))
    assert explained == set(ACTIONS)


# --- Looking at pages --------------------------------------------------------------------------------------------
def test_opened_case_is_one_event_with_who_when_and_from_where(sign_in: SignIn, reader: User, case: Case) -> None:
    answer = sign_in(reader).get(reverse("case", args=[case.pk]), REMOTE_ADDR="10.1.2.3", HTTP_X_REQUEST_ID="r-1")

    assert answer.status_code == 200
    event = AuditEvent.objects.get(action="case_viewed")
    assert (event.actor, event.laboratory, event.target_type, event.target_id) == (
        reader,
        reader.laboratory,
        "case",
        str(case.pk),
    )
    assert event.facts == {"page": "case"}
    assert event.ip == "10.1.2.3"
    assert event.request_id


def test_what_a_script_fetches_for_an_open_page_is_no_look(
    sign_in: SignIn, reader: User, case: Case, classified: CellImage
) -> None:
    client = sign_in(reader)
    for name, query in (("case-changes", "?since="), ("case-tiles", f"?id={classified.pk}"), ("case-differential", "")):
        client.get(reverse(name, args=[case.pk]) + query, headers={"X-Fragment": "1"})
    for fragment in ("1", "side"):
        client.get(reverse("image", args=[classified.pk]), headers={"X-Fragment": fragment})
    client.get(reverse("image-cards"), {"id": str(classified.pk)})
    assert looks() == []


def test_lists_thumbnails_heat_maps_and_heads_are_no_look(
    sign_in: SignIn, reader: User, case: Case, classified: CellImage
) -> None:
    client = sign_in(reader)
    for address in (reverse("home"), reverse("cases"), reverse("images"), reverse("batches")):
        assert client.get(address).status_code == 200
    for name in ("image-thumbnail", "image-heat-map"):
        client.get(reverse(name, args=[classified.pk]))
    client.head(reverse("case", args=[case.pk]))
    client.head(reverse("image", args=[classified.pk]))
    assert looks() == []


def test_image_page_and_original_are_a_look_each(sign_in: SignIn, reader: User, classified: CellImage) -> None:
    client = sign_in(reader)
    client.get(reverse("image", args=[classified.pk]))
    answer = client.get(reverse("image-file", args=[classified.pk]))

    assert b"".join(answer)
    pk = str(classified.pk)
    assert looks() == [("image_viewed", pk, "image"), ("image_viewed", pk, "original")]
    assert AuditEvent.objects.filter(action="image_viewed").latest("at").facts["case"] == str(classified.case_id)


def test_tile_of_a_picture_without_thumbnail_is_no_look_and_no_way_around_one(
    sign_in: SignIn, reader: User, make_image: MakeImage
) -> None:
    waiting = make_image()
    client = sign_in(reader)
    tile = reverse("image-file", args=[waiting.pk]) + "?tile"
    assert tile in client.get(reverse("case", args=[waiting.case_id])).content.decode()
    client.get(tile)
    assert [page for _, _, page in looks()] == ["case"]

    CellImage.objects.filter(pk=waiting.pk).update(has_thumbnail=True)
    client.get(tile)
    assert [page for _, _, page in looks()] == ["case", "original"]


def test_pages_that_act_on_a_case_show_it_as_well(sign_in: SignIn, reader: User, case: Case) -> None:
    client = sign_in(reader)
    pages = ["case-edit", "case-assign", "case-void", "case-release", "case-trial"]
    for name in pages:
        assert client.get(reverse(name, args=[case.pk])).status_code == 200
    assert [page for _, _, page in looks()] == pages


def test_stranger_leaves_no_look_of_what_is_not_shown(sign_in: SignIn, stranger: User, classified: CellImage) -> None:
    client = sign_in(stranger)
    assert client.get(reverse("case", args=[classified.case_id])).status_code == 404
    for name in ("image", "image-file"):
        assert client.get(reverse(name, args=[classified.pk])).status_code == 404
    assert looks() == []


def test_look_costs_one_statement_more(sign_in: SignIn, reader: User, case: Case) -> None:
    client = sign_in(reader)
    client.get(reverse("case", args=[case.pk]))
    with CaptureQueriesContext(connection) as queries:
        client.get(reverse("case", args=[case.pk]))
    written = [query["sql"] for query in queries if not query["sql"].startswith("SELECT")]
    assert len(written) == 1
    assert written[0].startswith('INSERT INTO "accounts_auditevent"')


# --- Looking over the API ----------------------------------------------------------------------------------------
def test_client_that_reads_a_case_is_noted_and_one_that_has_it_already_is_not(
    api: Api, technologist: User, case: Case
) -> None:
    client = api(technologist)
    for name in ("api-case", "api-case-differential"):
        before = len(looks())
        answer = client.get(reverse(name, args=[case.pk]))
        assert answer.status_code == 200
        again = client.get(reverse(name, args=[case.pk]), headers={"If-None-Match": answer["ETag"]})
        assert again.status_code == 304
        assert looks()[before:] == [("case_viewed", str(case.pk), name)]


def test_client_that_waits_for_an_image_is_not_noted_until_there_is_something_to_see(
    api: Api, technologist: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image()
    client, address = api(technologist), reverse("api-image", args=[image.pk])
    for _ in range(3):
        assert client.get(address).json()["status"] == "queued"
    assert looks() == []

    pipeline.classify_queued()
    answer = client.get(address)
    assert answer.json()["status"] == "classified"
    assert client.get(address, headers={"If-None-Match": answer["ETag"]}).status_code == 304
    client.get(reverse("api-image-file", args=[image.pk]))
    assert [page for _, _, page in looks()] == ["api-image", "original"]


# --- The machine -------------------------------------------------------------------------------------------------
def test_micro_batch_is_one_event_a_case(
    make_image: MakeImage, model_version: ModelVersion, case: Case, technologist: User
) -> None:
    other = Case.objects.create(laboratory=case.laboratory, accession_number="A-2", opened_by=technologist)
    images = [make_image(), make_image(), make_image(case=other)]

    assert pipeline.classify_queued() == 3

    events = {event.target_id: event for event in AuditEvent.objects.filter(action="images_classified")}
    assert set(events) == {str(case.pk), str(other.pk)}
    event = events[str(case.pk)]
    assert (event.actor, event.laboratory, event.target_type) == (None, case.laboratory, "case")
    assert event.facts == {"images": sorted(str(image.pk) for image in images[:2]), "model": str(model_version.pk)}


def test_classified_images_are_recorded_by_one_insert(
    make_image: MakeImage, model_version: ModelVersion, django_assert_num_queries: Any
) -> None:
    images = [make_image() for _ in range(3)]
    with django_assert_num_queries(1):
        machine_audit.record_classified(images, model_version)
    with django_assert_num_queries(0):
        machine_audit.record_classified([], model_version)


def test_image_that_came_to_nothing_is_in_the_trail(make_image: MakeImage, model_version: ModelVersion) -> None:
    image = make_image()
    image.file.storage.delete(str(image.file.name))

    pipeline.classify_queued()

    event = AuditEvent.objects.get(action="image_failed")
    assert (event.target_id, event.actor, event.laboratory) == (str(image.pk), None, image.case.laboratory)
    assert event.facts == {"case": str(image.case_id), "code": "stored_file_missing"}


def test_worker_has_the_id_of_its_task_and_nobodys_address(technologist: User) -> None:
    """The message that woke it carries the context of whoever uploaded something."""
    with structlog.contextvars.bound_contextvars(task_id="t-1", request_id="r-1", ip="10.1.2.3"):
        event = audit.record(action="images_classified", actor=None, laboratory=technologist.laboratory_id)
    assert (event.ip, event.request_id) == (None, "t-1")
    with structlog.contextvars.bound_contextvars(request_id="r-1", ip="10.1.2.3"):
        event = audit.record(action="case_opened", actor=technologist)
    assert (event.ip, event.request_id) == ("10.1.2.3", "r-1")


# --- The audit desk ----------------------------------------------------------------------------------------------
def test_nothing_is_changed_on_the_desk_but_through_a_service(request: pytest.FixtureRequest) -> None:
    """Whoever may add or change a row there does so by a `save_model` of ours, which records it; nobody deletes."""
    pages = admin.site._registry.values()
    assert all(isinstance(page, VerbAdmin) for page in pages)
    ours = {type(page).__name__ for page in pages if type(page).save_model is not admin.ModelAdmin.save_model}
    for role in ("auditor", "lab_admin", "operator", "reader"):
        asked = type("Asked", (), {"user": request.getfixturevalue(role), "GET": {}, "POST": {}})()
        for page in pages:
            name = type(page).__name__
            if page.has_change_permission(asked) or page.has_add_permission(asked):
                assert name in ours or page.readonly_fields, f"{name} changes rows past the services"
            assert not page.has_delete_permission(asked), name
            assert "delete_selected" not in page.get_actions(asked), name


def test_djangos_own_log_which_keeps_names_stays_empty(sign_in: SignIn, lab_admin: User, technologist: User) -> None:
    fields = {"email": technologist.email, "full_name": "Tess T.", "role": "reader", "is_active": "on"}
    sign_in(lab_admin).post(reverse("admin:accounts_user_change", args=[technologist.pk]), fields)

    assert AuditEvent.objects.get(action="user_changed").facts == {"fields": ["full_name", "role"]}
    assert not LogEntry.objects.exists()


def test_auditor_who_opens_a_row_of_the_desk_is_noted(sign_in: SignIn, auditor: User, classified: CellImage) -> None:
    client = sign_in(auditor)
    assert client.get(reverse("admin:classifier_case_change", args=[classified.case_id])).status_code == 200
    event = AuditEvent.objects.get(action="desk_row_viewed")
    assert (event.actor, event.target_type, event.target_id) == (auditor, "case", str(classified.case_id))

    client.get(reverse("admin:accounts_auditevent_change", args=[event.pk]))
    assert AuditEvent.objects.filter(action="desk_row_viewed").count() == 1


def test_history_of_a_row_is_the_audit_trail(sign_in: SignIn, auditor: User, lab_admin: User, case: Case) -> None:
    address = reverse("admin:classifier_case_history", args=[case.pk])
    answer = sign_in(auditor).get(address)
    assert answer["Location"].endswith(f"?q={case.pk}")
    page = sign_in(auditor).get(answer["Location"]).content.decode()
    assert "Opened a new case" in page
    assert sign_in(lab_admin).get(reverse("admin:accounts_user_history", args=[lab_admin.pk])).status_code == 403
