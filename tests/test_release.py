"""Signing, amending and correcting: who may, what stands in the way, and what happens at the same moment."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import timezone

from accounts.models import AuditEvent, Laboratory, User
from classifier import services
from classifier.errors import Conflict, HematoVisionError, InvalidInput, NotAllowed, TooManyTries
from classifier.models import Amendment, Case, CellImage, ModelVersion, Notification, Report, Void
from classifier.reports.payload import build_payload, canonical_json
from classifier.services.reports import amend_report, release_report
from tests.conftest import PASSWORD
from tests.factories import image_in_state, prediction_of
from tests.signing import ready_to_sign, settings_row

FEW = {"reason": "Only a few cells on the smear."}


@pytest.fixture
def reviewed_case(case: Case, technologist: User, model_version: ModelVersion) -> Case:
    return ready_to_sign(case, technologist=technologist, model_version=model_version)


def release(case: Case, actor: User, **fields: Any) -> Report:
    return release_report(actor=actor, case=case, **{"password": PASSWORD, **fields})


def refused(act: Callable[[], object], error: type[HematoVisionError], code: str) -> HematoVisionError:
    with pytest.raises(error) as caught:
        act()
    assert caught.value.code == code
    return caught.value


# --- What a release freezes ----------------------------------------------------------------------------------------


def test_release_freezes_the_case_as_it_stands(reviewed_case: Case, reader: User) -> None:
    Case.objects.filter(pk=reviewed_case.pk).update(wbc_value=Decimal("7.50"), wbc_source="Analyser 4")

    report = release(reviewed_case, reader, comment="  Looks as expected. ")

    reviewed_case.refresh_from_db()
    payload = report.payload
    assert reviewed_case.status == "released"
    assert (report.version, report.kind, report.signed_by) == (1, "released", reader)
    assert payload["report"]["comment"] == "Looks as expected."
    assert payload["report"]["signer"] == {"id": str(reader.pk), "name": "Ruth Reyes", "role": "Reader"}
    assert payload["case"]["wbc"] == {"value": 7.5, "source": "Analyser 4"}
    assert payload["review"] == {"confirmed": 1, "corrected": 1, "manual": 0, "unusable": 0, "void": 0}
    assert [image["final_label"] for image in payload["images"]] == ["lymphocyte", "neutrophil"]
    assert [image["suggestion"] for image in payload["images"]] == ["lymphocyte", "lymphocyte"]
    assert {image["reader"]["name"] for image in payload["images"]} == {"Tess Tanner"}
    assert payload["differential"]["n"] == 2
    assert payload["differential"]["basis"] == "reviewed"
    assert payload["laboratory"]["settings_version"] == 1
    assert payload["codes"]["neutrophil"] == "26511-6"


def test_statement_names_the_signer_the_time_and_the_model(
    reviewed_case: Case, reader: User, model_version: ModelVersion
) -> None:
    report = release(reviewed_case, reader)

    local = report.payload["report"]["signed_at_local"]
    assert local.endswith((" CET", " CEST"))
    assert report.payload["statement"] == (
        f"AI-assisted, verified by Ruth Reyes, {local}. Model {model_version.name} {model_version.version}."
    )
    assert report.payload["models"] == [
        {"name": model_version.name, "version": model_version.version, "sha256": model_version.sha256, "cells": 2}
    ]


def test_hash_is_of_exactly_the_stored_bytes(reviewed_case: Case, reader: User) -> None:
    report = Report.objects.get(pk=release(reviewed_case, reader, comment="Żółć, Ωμέγα, 血").pk)

    assert report.sha256 == sha256(report.payload_json.encode()).hexdigest()
    assert report.is_whole
    assert canonical_json(json.loads(report.payload_json)) == report.payload_json
    assert "Żółć, Ωμέγα, 血" in report.payload_json


def test_void_images_are_counted_as_void_and_nowhere_else(
    reviewed_case: Case, reader: User, technologist: User
) -> None:
    image = image_in_state("queued", case=reviewed_case, uploaded_by=technologist)
    Void(image=image, reason="Another patient's smear", by=reader).save()

    payload = release(reviewed_case, reader).payload

    assert payload["review"]["void"] == 1
    assert str(image.pk) not in {row["id"] for row in payload["images"]}


def test_case_that_was_read_by_hand_alone_names_no_model(
    case: Case, laboratory: Laboratory, technologist: User, reader: User
) -> None:
    settings_row(laboratory)
    image_in_state("reviewed", case=case, uploaded_by=technologist)

    payload = release(case, reader).payload

    assert payload["models"] == []
    assert payload["statement"].endswith("No model took part.")
    assert payload["review"]["manual"] == 1


def test_draft_bears_what_the_model_says_and_no_signature(
    reviewed_case: Case, technologist: User, model_version: ModelVersion
) -> None:
    assert build_payload(reviewed_case)["statement"] == "Every cell was reviewed by a person; nobody has signed."
    image = image_in_state("classified", case=reviewed_case, uploaded_by=technologist)
    prediction_of(image, model_version, label="monocyte", suggestion="monocyte")

    payload = build_payload(reviewed_case)

    assert payload["report"] is None
    assert payload["statement"] == "AI suggestion - not verified. For trained reviewers; not for diagnosis."
    row = next(row for row in payload["images"] if row["id"] == str(image.pk))
    assert (row["verdict"], row["suggestion"], row["reader"]) == (None, "monocyte", None)


def test_payload_takes_the_same_number_of_queries_for_many_images(
    reviewed_case: Case, technologist: User, model_version: ModelVersion, django_assert_num_queries: Any
) -> None:
    case = Case.objects.select_related("laboratory").get(pk=reviewed_case.pk)
    with django_assert_num_queries(5):
        build_payload(case)
    for _ in range(5):
        prediction_of(image_in_state("classified", case=case, uploaded_by=technologist), model_version)
    with django_assert_num_queries(5):
        build_payload(case)


# --- What stands in the way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "claimed", "classified", "failed"])
def test_unreviewed_image_blocks_the_release_whatever_the_reason(
    status: str, reviewed_case: Case, reader: User, technologist: User, model_version: ModelVersion
) -> None:
    image = image_in_state(status, case=reviewed_case, uploaded_by=technologist)
    if status == "classified":
        prediction_of(image, model_version)

    error = refused(lambda: release(reviewed_case, reader, **FEW), Conflict, "release_blocked")

    code = {"claimed": "queued", "classified": "unreviewed"}.get(status, status)
    assert [(blocker["code"], blocker["count"]) for blocker in error.details["errors"]] == [(code, 1)]
    assert Report.objects.count() == 0
    assert Case.objects.get(pk=reviewed_case.pk).status == "in_review"


def test_unidentified_image_blocks_the_release(
    reviewed_case: Case, reader: User, technologist: User, model_version: ModelVersion
) -> None:
    image = image_in_state("classified", case=reviewed_case, uploaded_by=technologist)
    prediction_of(image, model_version, label="", abstained=True, reason="The model is not sure.")

    error = refused(lambda: release(reviewed_case, reader, **FEW), Conflict, "release_blocked")

    assert [blocker["code"] for blocker in error.details["errors"]] == ["unidentified"]


def test_too_few_cells_need_a_reason_which_the_report_keeps(
    reviewed_case: Case, laboratory: Laboratory, reader: User
) -> None:
    settings_row(laboratory, version=2, target_count=100)

    error = refused(lambda: release(reviewed_case, reader), Conflict, "release_blocked")
    assert [blocker["code"] for blocker in error.details["errors"]] == ["below_target_count"]
    assert "give a reason" in error.message

    report = release(reviewed_case, reader, **FEW)
    assert report.reason == FEW["reason"] == report.payload["report"]["reason"]
    assert [blocker["code"] for blocker in report.payload["differential"]["blocked_by"]] == ["below_target_count"]


def test_empty_case_is_never_released(case: Case, laboratory: Laboratory, reader: User) -> None:
    settings_row(laboratory)
    error = refused(lambda: release(case, reader, **FEW), Conflict, "release_blocked")
    assert [blocker["code"] for blocker in error.details["errors"]] == ["no_images"]


def test_second_release_is_refused(reviewed_case: Case, reader: User) -> None:
    release(reviewed_case, reader)
    refused(lambda: release(reviewed_case, reader), Conflict, "already_released")
    assert Report.objects.count() == 1


def test_void_case_is_neither_released_nor_amended(reviewed_case: Case, reader: User) -> None:
    Case.objects.filter(pk=reviewed_case.pk).update(status="void")
    refused(lambda: release(reviewed_case, reader), Conflict, "case_void")
    refused(
        lambda: amend_report(actor=reader, case=reviewed_case, kind="amended", reason="Why not"), Conflict, "case_void"
    )


@pytest.mark.parametrize("role", ["technologist", "auditor", "lab_admin", "service_account", "operator", "stranger"])
def test_only_a_reader_of_the_laboratory_releases_and_amends(
    role: str, reviewed_case: Case, request: pytest.FixtureRequest
) -> None:
    actor = request.getfixturevalue(role)
    refused(lambda: release(reviewed_case, actor), NotAllowed, "not_allowed")
    refused(
        lambda: amend_report(actor=actor, case=reviewed_case, kind="amended", reason="Why not"),
        NotAllowed,
        "not_allowed",
    )
    assert Report.objects.count() == 0


def test_four_eyes_keep_an_uploader_from_signing(
    reviewed_case: Case, laboratory: Laboratory, reader: User, technologist: User
) -> None:
    image = image_in_state("reviewed", case=reviewed_case, uploaded_by=reader)
    settings_row(laboratory, version=2, uploader_may_release=False)

    refused(lambda: release(reviewed_case, reader), NotAllowed, "uploader_may_not_release")

    Void(image=image, reason="Blurred", by=reader).save()
    assert release(reviewed_case, reader).version == 1


def test_uploader_signs_where_the_laboratory_allows_it(reviewed_case: Case, reader: User) -> None:
    image_in_state("reviewed", case=reviewed_case, uploaded_by=reader)
    assert release(reviewed_case, reader).version == 1


def test_text_that_is_too_long_is_refused(reviewed_case: Case, reader: User) -> None:
    refused(lambda: release(reviewed_case, reader, comment="x" * 2001), InvalidInput, "comment_too_long")
    refused(lambda: release(reviewed_case, reader, reason="x" * 501), InvalidInput, "reason_too_long")


# --- The password --------------------------------------------------------------------------------------------------


def test_wrong_password_signs_nothing_and_is_audited_without_it(reviewed_case: Case, reader: User) -> None:
    refused(lambda: release(reviewed_case, reader, password="hunter2-hunter2"), NotAllowed, "wrong_password")

    event = AuditEvent.objects.get(action="release_password_wrong")
    assert (event.actor, event.target_id) == (reader, str(reviewed_case.pk))
    assert "hunter2" not in json.dumps(event.facts)
    assert Report.objects.count() == 0


def test_five_wrong_passwords_close_the_door_for_five_minutes(
    reviewed_case: Case, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        refused(lambda: release(reviewed_case, reader, password="wrong"), NotAllowed, "wrong_password")

    error = refused(lambda: release(reviewed_case, reader), TooManyTries, "too_many_tries")
    assert error.status == 429
    refused(lambda: release(reviewed_case, reader, password="wrong"), TooManyTries, "too_many_tries")
    assert AuditEvent.objects.filter(action="release_password_wrong").count() == 5

    later = timezone.now() + timedelta(minutes=5, seconds=1)
    monkeypatch.setattr("classifier.services.reports.timezone.now", lambda: later)
    assert release(reviewed_case, reader).version == 1


def test_wrong_tries_of_one_reader_do_not_lock_out_another(
    reviewed_case: Case, reader: User, laboratory: Laboratory
) -> None:
    colleague = User.objects.create_user("rob@north.example", PASSWORD, laboratory=laboratory, role="reader")
    for _ in range(5):
        refused(lambda: release(reviewed_case, colleague, password="wrong"), NotAllowed, "wrong_password")
    assert release(reviewed_case, reader).version == 1


# --- Amending and correcting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["amended", "corrected"])
def test_amending_opens_the_case_and_the_next_signature_closes_it(
    kind: str, reviewed_case: Case, reader: User, technologist: User
) -> None:
    first = release(reviewed_case, reader)
    amend_report(actor=reader, case=reviewed_case, kind=kind, reason="Two more cells were found.")
    assert Case.objects.get(pk=reviewed_case.pk).status == "in_review"

    image_in_state("reviewed", case=reviewed_case, uploaded_by=technologist)
    second = release(reviewed_case, reader)

    assert (second.version, second.kind, second.reason) == (2, kind, "Two more cells were found.")
    assert Case.objects.get(pk=reviewed_case.pk).status == kind
    assert second.payload["report"]["replaces"] == {"id": str(first.pk), "version": 1, "sha256": first.sha256}
    assert second.payload["differential"]["n"] == 3
    assert Report.objects.get(pk=first.pk).payload["differential"]["n"] == 2


def test_third_version_has_the_kind_of_its_own_amendment(reviewed_case: Case, reader: User) -> None:
    release(reviewed_case, reader)
    for kind, version in (("corrected", 2), ("amended", 3)):
        amend_report(actor=reader, case=reviewed_case, kind=kind, reason=f"Because of {kind}.")
        report = release(reviewed_case, reader)
        assert (report.version, report.kind, report.reason) == (version, kind, f"Because of {kind}.")


def test_report_is_amended_once_at_a_time(reviewed_case: Case, reader: User) -> None:
    release(reviewed_case, reader)
    amend_report(actor=reader, case=reviewed_case, kind="amended", reason="More cells.")
    refused(
        lambda: amend_report(actor=reader, case=reviewed_case, kind="corrected", reason="An error."),
        Conflict,
        "already_being_amended",
    )
    assert Amendment.objects.count() == 1


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"kind": "amended", "reason": "  "}, InvalidInput, "reason_missing"),
        ({"kind": "withdrawn", "reason": "An error."}, InvalidInput, "unknown_kind"),
        ({"kind": "amended", "reason": "x" * 501}, InvalidInput, "reason_too_long"),
        ({"kind": "amended", "reason": "More cells."}, Conflict, "not_released"),
    ],
)
def test_amendment_that_makes_no_sense_is_refused(
    fields: dict[str, str], error: type[HematoVisionError], code: str, reviewed_case: Case, reader: User
) -> None:
    refused(lambda: amend_report(actor=reader, case=reviewed_case, **fields), error, code)
    assert Case.objects.get(pk=reviewed_case.pk).status == "in_review"


def test_those_who_had_a_part_learn_of_a_correction_and_the_signer_does_not(
    reviewed_case: Case, reader: User, technologist: User, laboratory: Laboratory, stranger: User
) -> None:
    assigned = User.objects.create_user("asa@north.example", PASSWORD, laboratory=laboratory, role="reader")
    User.objects.create_user("idle@north.example", PASSWORD, laboratory=laboratory, role="reader")
    Case.objects.filter(pk=reviewed_case.pk).update(assigned_to=assigned)
    release(reviewed_case, reader)
    assert Notification.objects.count() == 0

    for _ in range(2):
        amend_report(actor=reader, case=reviewed_case, kind="corrected", reason="A wrong cell.")
        report = release(reviewed_case, reader)

    told = Notification.objects.filter(kind="report_corrected", report=report, case=reviewed_case)
    assert {notification.user for notification in told} == {technologist, assigned}
    assert Notification.objects.count() == 2


def test_former_signer_learns_of_a_correction(reviewed_case: Case, reader: User, laboratory: Laboratory) -> None:
    second = User.objects.create_user("rob@north.example", PASSWORD, laboratory=laboratory, role="reader")
    release(reviewed_case, reader)
    amend_report(actor=second, case=reviewed_case, kind="corrected", reason="A wrong cell.")
    release(reviewed_case, second)
    assert Notification.objects.filter(user=reader, kind="report_corrected").exists()
    assert not Notification.objects.filter(user=second).exists()


def test_every_act_is_in_the_audit_trail_without_patient_text(reviewed_case: Case, reader: User) -> None:
    first = release(reviewed_case, reader, comment="A secret remark")
    amend_report(actor=reader, case=reviewed_case, kind="corrected", reason="A secret reason")
    release(reviewed_case, reader)

    events = list(AuditEvent.objects.filter(target_type="report").order_by("at"))
    assert [event.action for event in events] == ["report_released", "amendment_opened", "report_corrected"]
    assert events[0].target_id == str(first.pk)
    assert events[0].facts == {"case": str(reviewed_case.pk), "version": 1, "sha256": first.sha256}
    assert "ecret" not in json.dumps([event.facts for event in events])


# --- At the same moment --------------------------------------------------------------------------------------------


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Do all acts at the same moment, each on a connection of its own. Returns each one's result or error."""
    start = threading.Barrier(len(acts))
    outcomes: list[object] = [None] * len(acts)

    def run(place: int, act: Callable[[], object]) -> None:
        start.wait()
        try:
            outcomes[place] = act()
        except HematoVisionError as error:
            outcomes[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(place, act)) for place, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return outcomes


@pytest.mark.django_db(transaction=True)
def test_two_releases_at_once_give_one_report(reviewed_case: Case, reader: User) -> None:
    outcomes = at_once(*[lambda: release(Case.objects.get(pk=reviewed_case.pk), reader)] * 4)

    assert sum(isinstance(outcome, Report) for outcome in outcomes) == 1
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert [refusal.code for refusal in refusals] == ["already_released"] * 3
    assert Report.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_amendments_at_once_open_the_case_once(reviewed_case: Case, reader: User) -> None:
    release(reviewed_case, reader)

    def amend() -> Amendment:
        case = Case.objects.get(pk=reviewed_case.pk)
        return amend_report(actor=reader, case=case, kind="amended", reason="More cells.")

    outcomes = at_once(amend, amend, amend)
    assert sum(isinstance(outcome, Amendment) for outcome in outcomes) == 1
    assert {outcome.code for outcome in outcomes if isinstance(outcome, Conflict)} == {"already_being_amended"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", range(4))
def test_release_and_upload_at_once_never_leave_an_unreviewed_image_behind(
    attempt: int, reviewed_case: Case, reader: User, technologist: User, as_upload: Any, smear: bytes
) -> None:
    def upload() -> object:
        case = Case.objects.get(pk=reviewed_case.pk)
        return services.add_image(actor=technologist, case=case, upload=as_upload(smear))

    released, uploaded = at_once(lambda: release(Case.objects.get(pk=reviewed_case.pk), reader), upload)

    images = CellImage.objects.filter(case=reviewed_case).exclude(status="reviewed").count()
    if isinstance(released, Report):
        assert images == 0
        assert isinstance(uploaded, Conflict)
        assert released.payload["differential"]["n"] == 2
    else:
        assert isinstance(released, Conflict)
        assert released.code == "release_blocked"
        assert images == 1
        assert Case.objects.get(pk=reviewed_case.pk).status == "in_review"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", range(4))
def test_release_and_withdrawn_review_at_once_never_leave_an_unreviewed_image_behind(
    attempt: int, reviewed_case: Case, reader: User, technologist: User
) -> None:
    image_id = CellImage.objects.filter(case=reviewed_case).values_list("pk", flat=True)[0]

    def withdraw() -> object:
        image = CellImage.objects.select_related("case").get(pk=image_id)
        return services.review_image(actor=technologist, image=image, verdict="WITHDRAWN")

    released, withdrawn = at_once(lambda: release(Case.objects.get(pk=reviewed_case.pk), reader), withdraw)

    unreviewed = CellImage.objects.filter(case=reviewed_case).exclude(status="reviewed").count()
    if isinstance(released, Report):
        assert unreviewed == 0
        assert isinstance(withdrawn, Conflict)
    else:
        assert isinstance(released, Conflict)
        assert released.code == "release_blocked"
        assert unreviewed == 1


@pytest.mark.django_db(transaction=True)
def test_wrong_passwords_at_once_are_all_counted(reviewed_case: Case, reader: User) -> None:
    outcomes = at_once(
        *[lambda: release(Case.objects.get(pk=reviewed_case.pk), User.objects.get(pk=reader.pk), password="wrong")] * 8
    )
    assert sum(isinstance(outcome, NotAllowed) for outcome in outcomes) == 5
    assert sum(isinstance(outcome, TooManyTries) for outcome in outcomes) == 3


@pytest.mark.django_db(transaction=True)
def test_release_waits_for_an_upload_in_flight(reviewed_case: Case, reader: User, technologist: User) -> None:
    """The row of an upload is written but not committed when the release begins."""
    written, started = threading.Event(), threading.Event()

    def upload_slowly() -> None:
        try:
            with transaction.atomic():
                image_in_state("queued", case=Case.objects.get(pk=reviewed_case.pk), uploaded_by=technologist)
                written.set()
                started.wait(10)
                # Long enough for the release to reach the case's lock and wait there.
                threading.Event().wait(0.5)
        finally:
            connections.close_all()

    uploader = threading.Thread(target=upload_slowly)
    uploader.start()
    assert written.wait(10)
    started.set()
    error = refused(lambda: release(reviewed_case, reader), Conflict, "release_blocked")
    uploader.join(20)
    assert [blocker["code"] for blocker in error.details["errors"]] == ["queued"]
