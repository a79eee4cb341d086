"""The API's details with their entity tags, and what a client does to a case."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import ANY

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import AuditEvent, User
from classifier import services
from classifier.models import Case, CellImage, ImageStatus, ModelVersion, Notification
from classifier.retention import hold_of
from classifier.services import review_image
from tests.conftest import PASSWORD
from tests.factories import prediction_of
from tests.signing import ready_to_sign, settings_row

Api = Callable[..., APIClient]
MakeImage = Callable[..., CellImage]


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


# --- Details ---------------------------------------------------------------------------------------------------


def test_case_says_what_its_images_and_reports_come_to(
    api: Api, reader: User, technologist: User, case: Case, model_version: ModelVersion, make_image: MakeImage
) -> None:
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    services.void_image(actor=reader, image=make_image("queued"), reason="Blurred.")
    report = services.release_report(actor=reader, case=case, password=PASSWORD)

    body = api(reader).get(f"/api/v1/cases/{case.pk}/").json()

    counts = dict.fromkeys(ImageStatus.values, 0) | {"reviewed": 2, "total": 2, "void": 1}
    assert body["images"] == counts
    assert body["report"] == {"id": str(report.pk), "version": 1, "standing": "current", "url": ANY}
    assert (body["void"], body["opened_by"]["name"]) == (None, "Tess Tanner")
    services.void_case(actor=reader, case=case, reason="Wrong patient.")
    after = api(reader).get(f"/api/v1/cases/{case.pk}/").json()
    assert after["void"] == {"reason": "Wrong patient.", "by": "Ruth Reyes", "at": ANY}
    assert (after["status"], after["report"]["standing"]) == ("void", "entered_in_error")


def test_image_that_did_not_change_is_not_sent_again(
    api: Api,
    reader: User,
    technologist: User,
    make_image: MakeImage,
    model_version: ModelVersion,
    django_assert_num_queries: Any,
) -> None:
    image = make_image("classified")
    prediction_of(image, model_version)
    client, url = api(reader), f"/api/v1/images/{image.pk}/"
    etag = client.get(url)["ETag"]

    # The token with its owner, and the state: nothing of the image itself is read.
    with django_assert_num_queries(2):
        same = client.get(url, HTTP_IF_NONE_MATCH=etag)
    assert (same.status_code, same.content, same["ETag"]) == (304, b"", etag)

    review_image(actor=technologist, image=image, verdict="CONFIRMED")
    changed = client.get(url, HTTP_IF_NONE_MATCH=etag)
    assert changed.status_code == 200
    assert changed["ETag"] != etag
    services.void_image(actor=reader, image=image, reason="Blurred.")
    void = client.get(url, HTTP_IF_NONE_MATCH=changed["ETag"])
    assert void.json()["void"]["reason"] == "Blurred."


def test_every_step_of_an_image_changes_its_tag(
    api: Api, technologist: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image("queued")
    client, seen = api(technologist), []
    rows = CellImage.objects.filter(pk=image.pk)
    steps: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rows.update(status="classified", classified_at=timezone.now()),
        lambda: prediction_of(image, model_version),
        lambda: rows.update(status="failed", failure_code="prediction_failed"),
        lambda: services.requeue_image(actor=technologist, image=image),
    ]
    for step in steps:
        step()
        seen.append(client.get(f"/api/v1/images/{image.pk}/")["ETag"])

    assert len(set(seen)) == len(steps)


@pytest.mark.parametrize("name", ["case", "differential", "model", "cell-types"])
def test_details_answer_304(api: Api, reader: User, case: Case, model_version: ModelVersion, name: str) -> None:
    url = {
        "differential": f"/api/v1/cases/{case.pk}/differential/",
        "case": f"/api/v1/cases/{case.pk}/",
        "model": f"/api/v1/models/{model_version.pk}/",
        "cell-types": "/api/v1/cell-types/",
    }[name]
    client = api(reader)
    etag = client.get(url)["ETag"]

    assert client.get(url, HTTP_IF_NONE_MATCH=f'"other", {etag}').status_code == 304
    assert client.get(url, HTTP_IF_NONE_MATCH="nonsense").status_code == 200


def test_differential_has_another_tag_when_anything_in_it_is_different(
    api: Api, reader: User, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    client, url = api(reader), f"/api/v1/cases/{case.pk}/differential/"
    seen = [client.get(url)["ETag"]]
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    seen.append(client.get(url)["ETag"])
    services.change_case(actor=technologist, case=case, wbc_value=Decimal("7.5"), wbc_source="XN")
    seen.append(client.get(url)["ETag"])

    assert len(set(seen)) == 3


def test_report_that_is_worth_something_else_has_another_tag_and_reading_it_anew_is_noted(
    api: Api, reader: User, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    ready_to_sign(case, technologist=technologist, model_version=model_version)
    report = services.release_report(actor=reader, case=case, password=PASSWORD)
    client, url = api(technologist), f"/api/v1/reports/{report.pk}/"
    views = AuditEvent.objects.filter(action="report_viewed")

    first = client.get(url)
    same = client.get(url, headers={"If-None-Match": first["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert views.count() == 1
    services.amend_report(actor=reader, case=case, kind="corrected", reason="Wrong range.")
    after = client.get(url, headers={"If-None-Match": first["ETag"]})

    assert (after.status_code, after.json()["standing"]) == (200, "being_amended")
    assert after["ETag"] != first["ETag"]
    assert views.count() == 2


def test_tag_opens_nothing_to_a_stranger(api: Api, reader: User, stranger: User, make_image: MakeImage) -> None:
    url = f"/api/v1/images/{make_image().pk}/"
    etag = api(reader).get(url)["ETag"]

    assert api(stranger).get(url, HTTP_IF_NONE_MATCH=etag).status_code == 404


def test_models_are_listed_with_their_figures_on_their_own_page(
    api: Api, stranger: User, model_version: ModelVersion
) -> None:
    client = api(stranger)

    [row] = client.get("/api/v1/models/").json()["results"]
    detail = client.get(row["url"]).json()

    assert (row["name"], row["version"], row["active"]) == (model_version.name, model_version.version, True)
    assert set(detail) == set(row) | {"metrics", "limits", "warning"}
    assert detail["warning"] == ""
    assert all(figures["n"] and "accuracy_low" in figures for figures in detail["metrics"].values())
    assert detail["limits"]


def test_cell_types_are_those_of_the_laboratorys_settings(api: Api, reader: User, case: Case) -> None:
    client = api(reader)
    start = client.get("/api/v1/cell-types/").json()
    types = [{"slug": "basophil", "range_low": None, "range_high": 1.5, "loinc": ""}]
    settings_row(case.laboratory, cell_types=types, target_count=200)

    own = client.get("/api/v1/cell-types/").json()

    assert (start["settings_version"], start["target_count"]) == (0, 100)
    assert start["cell_types"][0] == {
        "slug": "neutrophil", "name": "Neutrophil", "range_low": 50.0, "range_high": 70.0, "loinc": "26511-6",
    }  # fmt: skip
    assert own == {
        "settings_version": 1,
        "target_count": 200,
        "cell_types": [{"slug": "basophil", "name": "Basophil", "range_low": None, "range_high": 1.5, "loinc": None}],
    }


def test_administrator_saves_a_version_of_the_settings_and_loses_nobodys(
    api: Api, lab_admin: User, reader: User
) -> None:
    client, url = api(lab_admin), "/api/v1/laboratory/settings/"
    start = api(reader).get(url).json()
    assert (start["version"], start["made_by"], start["made_at"]) == (0, None, None)
    wanted = {name: value for name, value in start.items() if name not in {"version", "made_by", "made_at"}}

    saved = client.post(url, wanted | {"target_count": 200, "based_on": 0})
    late = client.post(url, wanted | {"target_count": 400, "based_on": 0})
    wrong = client.post(url, wanted | {"time_zone": "Mars/Olympus"})
    upside_down = [{"slug": "basophil", "range_low": 3, "range_high": 1, "loinc": ""}]

    assert (saved.status_code, saved.json()["version"], saved.json()["target_count"]) == (201, 1, 200)
    assert saved.json()["made_by"] == "Ada Adler"
    assert (late.status_code, late.json()["code"]) == (409, "settings_changed")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "unknown_time_zone")
    assert client.post(url, wanted | {"cell_types": upside_down}).status_code == 400
    assert client.post(url, wanted | {"abstain_below": 10**400}).json()["code"] == "invalid_input"
    assert client.post(url, wanted | {"targetcount": 3}).json()["code"] == "unknown_field"
    assert api(reader).get(url).json()["target_count"] == 200
    assert api(reader).post(url, wanted).status_code == 403


def test_stored_picture_is_handed_out(api: Api, reader: User, make_image: MakeImage) -> None:
    image = make_image()

    response = api(reader).get(f"/api/v1/images/{image.pk}/file/")

    with image.file.open("rb") as stored:
        assert response.getvalue() == stored.read()
    assert response["Content-Type"] == "image/jpeg"
    assert response["Cache-Control"] == "no-store, private"
    image.file.storage.delete(str(image.file.name))
    assert api(reader).get(f"/api/v1/images/{image.pk}/file/").status_code == 404


# --- What a person can do, a client can do ---------------------------------------------------------------------


def test_case_is_changed_field_by_field(api: Api, technologist: User, case: Case) -> None:
    client, url = api(technologist), f"/api/v1/cases/{case.pk}/"

    first = client.patch(url, {"specimen": "EDTA", "patient_pseudonym": "P-9", "wbc_value": 5, "wbc_source": "XN"})
    then = client.patch(url, {"patient_pseudonym": None, "wbc_value": None})

    assert (first.status_code, first.json()["wbc_value"]) == (200, 5.0)
    body = then.json()
    assert (body["specimen"], body["patient_pseudonym"], body["wbc_value"]) == ("EDTA", "", None)
    events = AuditEvent.objects.filter(action="case_changed", target_id=str(case.pk)).order_by("at")
    assert [event.facts["fields"] for event in events] == [
        ["patient_pseudonym", "specimen", "wbc_source", "wbc_value"],
        ["patient_pseudonym", "wbc_value"],
    ]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"accession_number": "B-1"}, "unknown_field"),
        ({"status": "released"}, "unknown_field"),
        ({"wbc_vaule": 3}, "unknown_field"),
        ({"wbc_value": 3}, "wbc_source_missing"),
        ({"wbc_value": -1, "wbc_source": "XN"}, "invalid_input"),
        ({"collected_at": "2999-01-01T00:00:00Z"}, "collected_at_implausible"),
    ],
)
def test_change_that_can_not_be_is_refused(
    api: Api, technologist: User, case: Case, fields: dict[str, Any], code: str
) -> None:
    response = api(technologist).patch(f"/api/v1/cases/{case.pk}/", fields)

    assert (response.status_code, response.json()["code"]) == (400, code)


def test_change_of_a_case_that_somebody_else_has_changed_is_refused(api: Api, technologist: User, case: Case) -> None:
    client, url = api(technologist), f"/api/v1/cases/{case.pk}/"
    seen = client.get(url)["ETag"]
    client.patch(url, {"specimen": "EDTA"}, HTTP_IF_MATCH=seen)

    late = client.patch(url, {"specimen": "citrate"}, HTTP_IF_MATCH=seen)

    assert (late.status_code, late.json()["code"]) == (412, "changed_meanwhile")
    assert client.get(url).json()["specimen"] == "EDTA"
    assert client.patch(url, {"specimen": "citrate"}, HTTP_IF_MATCH="*").status_code == 200


def test_case_is_given_to_a_reader_who_is_told(
    api: Api, technologist: User, reader: User, auditor: User, stranger: User, case: Case
) -> None:
    client, url = api(technologist), f"/api/v1/cases/{case.pk}/assign/"
    people = client.get("/api/v1/reviewers/").json()
    assert {person["id"] for person in people} == {str(technologist.pk), str(reader.pk)}

    given = client.post(url, {"reader": str(reader.pk)})

    assert given.json()["assigned_to"] == {"id": str(reader.pk), "name": "Ruth Reyes", "role": "reader"}
    assert Notification.objects.get().user == reader
    for nobody in (auditor, stranger):
        assert client.post(url, {"reader": str(nobody.pk)}).json()["code"] == "not_assignable"
    assert client.post(url, {}).json()["code"] == "invalid_input"
    assert client.post(url, {"reader": None}).json()["assigned_to"] is None


def test_somebody_who_left_is_neither_offered_nor_assigned(
    api: Api, technologist: User, reader: User, case: Case
) -> None:
    User.objects.filter(pk=reader.pk).update(is_active=False)
    client = api(technologist)

    assert str(reader.pk) not in {person["id"] for person in client.get("/api/v1/reviewers/").json()}
    refused = client.post(f"/api/v1/cases/{case.pk}/assign/", {"reader": str(reader.pk)})
    assert refused.json()["code"] == "not_assignable"


@pytest.mark.parametrize("what", ["case", "image"])
def test_thing_that_was_entered_in_error_is_void_once(api: Api, reader: User, make_image: MakeImage, what: str) -> None:
    image = make_image()
    url = f"/api/v1/{what}s/{image.case_id if what == 'case' else image.pk}/void/"
    client = api(reader)

    nothing_said = client.post(url, {"reason": " "})
    done = client.post(url, {"reason": "Wrong patient."})
    again = client.post(url, {"reason": "Wrong patient."})

    assert nothing_said.status_code == 400
    assert (done.status_code, done.json()) == (201, {"reason": "Wrong patient.", "by": "Ruth Reyes", "at": ANY})
    assert (again.status_code, again.json()["code"]) == (409, "already_void")
    assert AuditEvent.objects.get(action=f"{what}_voided").actor == reader


def test_day_of_the_server_is_meant(api: Api, reader: User, case: Case) -> None:
    today = timezone.localdate()
    client = api(reader)

    assert ids(client.get(f"/api/v1/cases/?opened_from={today}&opened_to={today}")) == [str(case.pk)]
    assert ids(client.get(f"/api/v1/cases/?opened_from={today + timedelta(days=1)}")) == []


# --- Legal holds ----------------------------------------------------------------------------------------------------


def test_administrator_places_and_lifts_a_hold_and_everybody_of_the_laboratory_sees_it(
    api: Api, lab_admin: User, technologist: User, case: Case
) -> None:
    url = f"/api/v1/cases/{case.pk}/hold/"
    assert api(technologist).get(url).json() == {"on_hold": False, "steps": []}

    placed = api(lab_admin).post(url, {"reason": "A lawsuit"})
    assert placed.status_code == 201
    assert {name: placed.json()[name] for name in ("holds", "reason", "by")} == {
        "holds": True,
        "reason": "A lawsuit",
        "by": str(lab_admin),
    }
    again = api(lab_admin).post(url, {"reason": "Twice"})
    assert (again.status_code, again.json()["code"]) == (409, "already_on_hold")
    assert api(technologist).get(url).json()["on_hold"] is True
    assert hold_of(case) is not None

    assert api(lab_admin).post(f"{url}lift/", {"reason": "Settled"}).status_code == 201
    again = api(lab_admin).post(f"{url}lift/", {"reason": "Twice"})
    assert (again.status_code, again.json()["code"]) == (409, "not_on_hold")
    seen = api(technologist).get(url).json()
    assert seen["on_hold"] is False
    assert [step["reason"] for step in seen["steps"]] == ["Settled", "A lawsuit"]
    assert hold_of(case) is None
    actions = AuditEvent.objects.filter(actor=lab_admin, target_id=str(case.pk)).order_by("at", "id")
    assert list(actions.values_list("action", flat=True)) == ["hold_placed", "hold_lifted"]
    for body in ({}, {"reason": " "}, {"reason": "x", "more": 1}):
        assert api(lab_admin).post(url, body).status_code == 400
