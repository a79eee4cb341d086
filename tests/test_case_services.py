"""Changing, assigning and voiding a case: what each does, who may, and what the audit trail keeps of it."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import AuditEvent, User
from classifier import services
from classifier.errors import Conflict, HematoVisionError, InvalidInput, NotAllowed
from classifier.models import Case, CaseStatus, CellImage, Notification, Void
from tests.conftest import person
from tests.pictures import jpeg_of_cell

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
SIGNED = ["released", "amended", "corrected"]


def events(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action))


# --- Changing --------------------------------------------------------------------------------------------------


def test_case_is_changed_and_the_trail_keeps_field_names_only(technologist: User, case: Case) -> None:
    changed = services.change_case(
        actor=technologist,
        case=case,
        patient_pseudonym=" P-77 ",
        specimen="EDTA",
        wbc_value=Decimal("5.40"),
        wbc_source="Analyser 1",
    )

    case.refresh_from_db()
    assert (case.patient_pseudonym, case.specimen, case.wbc_value) == ("P-77", "EDTA", Decimal("5.40"))
    assert changed.patient_pseudonym == "P-77"
    (event,) = events("case_changed")
    assert event.facts == {"fields": ["patient_pseudonym", "specimen", "wbc_source", "wbc_value"]}
    assert (event.actor, event.target_id) == (technologist, str(case.pk))


def test_what_is_the_same_or_not_given_is_no_change(technologist: User, case: Case) -> None:
    services.change_case(actor=technologist, case=case, specimen="EDTA", wbc_value=Decimal("5.4"), wbc_source="A")
    services.change_case(actor=technologist, case=case, specimen="EDTA", wbc_value=Decimal("5.40"))

    case.refresh_from_db()
    assert (case.specimen, case.wbc_source) == ("EDTA", "A")
    assert len(events("case_changed")) == 1


def test_two_people_who_change_different_fields_undo_nothing_of_each_other(
    technologist: User, reader: User, case: Case
) -> None:
    seen_by_reader = Case.objects.get(pk=case.pk)
    services.change_case(actor=technologist, case=case, specimen="EDTA")
    services.change_case(actor=reader, case=seen_by_reader, patient_pseudonym="P-1")

    case.refresh_from_db()
    assert (case.specimen, case.patient_pseudonym) == ("EDTA", "P-1")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"wbc_value": Decimal("5")}, "wbc_source_missing"),
        ({"wbc_value": Decimal("5"), "wbc_source": "  "}, "wbc_source_missing"),
        ({"collected_at": datetime(1850, 1, 1, tzinfo=UTC)}, "collected_at_implausible"),
        ({"collected_at": timezone.now() + timedelta(days=3)}, "collected_at_implausible"),
    ],
)
def test_implausible_change_is_refused_with_a_code(
    fields: dict[str, Any], code: str, technologist: User, case: Case
) -> None:
    with pytest.raises(InvalidInput) as refused:
        services.change_case(actor=technologist, case=case, **fields)

    assert refused.value.code == code
    case.refresh_from_db()
    assert case.wbc_value is None
    assert case.collected_at is None


def test_source_of_a_wbc_can_not_be_taken_from_under_it(technologist: User, case: Case) -> None:
    services.change_case(actor=technologist, case=case, wbc_value=Decimal("5"), wbc_source="Analyser 1")

    with pytest.raises(InvalidInput, match="wbc_source_missing"):
        services.change_case(actor=technologist, case=case, wbc_source="")


@pytest.mark.parametrize("status", [*SIGNED, "void"])
def test_case_that_is_signed_or_void_is_not_changed(status: str, technologist: User, case: Case) -> None:
    Case.objects.filter(pk=case.pk).update(status=status)

    with pytest.raises(Conflict) as refused:
        services.change_case(actor=technologist, case=case, specimen="EDTA")

    assert refused.value.code == ("case_void" if status == "void" else "case_released")
    assert not events("case_changed")


# --- Assigning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["technologist", "reader"])
@pytest.mark.parametrize("by", ["technologist", "reader", "service_account"])
def test_case_is_assigned_to_those_who_review(by: str, to: str, case: Case, request: pytest.FixtureRequest) -> None:
    actor, reader = request.getfixturevalue(by), request.getfixturevalue(to)

    services.assign_case(actor=actor, case=case, reader=reader)

    case.refresh_from_db()
    assert case.assigned_to == reader
    assert [event.facts for event in events("case_assigned")] == [{"reader": str(reader.pk)}]
    assert Notification.objects.filter(user=reader, kind="case_assigned", case=case).count() == int(reader != actor)


def test_case_can_be_given_back_to_nobody(technologist: User, reader: User, case: Case) -> None:
    services.assign_case(actor=technologist, case=case, reader=reader)
    services.assign_case(actor=reader, case=case, reader=None)

    case.refresh_from_db()
    assert case.assigned_to is None
    assert [event.facts["reader"] for event in events("case_assigned")] == [None, str(reader.pk)]


def test_assigning_to_whoever_has_it_already_is_no_act(technologist: User, reader: User, case: Case) -> None:
    services.assign_case(actor=technologist, case=case, reader=reader)
    services.assign_case(actor=technologist, case=case, reader=reader)

    assert len(events("case_assigned")) == 1
    assert Notification.objects.count() == 1


@pytest.mark.parametrize("to", ["auditor", "lab_admin", "service_account", "stranger", "operator"])
def test_case_is_not_assigned_to_those_who_can_not_review_it(
    to: str, technologist: User, case: Case, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(InvalidInput) as refused:
        services.assign_case(actor=technologist, case=case, reader=request.getfixturevalue(to))

    assert refused.value.code == "not_assignable"
    case.refresh_from_db()
    assert case.assigned_to is None
    assert not Notification.objects.exists()


def test_case_is_not_assigned_to_somebody_who_has_left(technologist: User, reader: User, case: Case) -> None:
    User.objects.filter(pk=reader.pk).update(is_active=False)
    reader.refresh_from_db()

    with pytest.raises(InvalidInput, match="not_assignable"):
        services.assign_case(actor=technologist, case=case, reader=reader)


def test_void_case_is_not_assigned(reader: User, case: Case) -> None:
    services.void_case(actor=reader, case=case, reason="Wrong patient")

    with pytest.raises(Conflict, match="case_void"):
        services.assign_case(actor=reader, case=case, reader=reader)


# --- Voiding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["open", "in_review", *SIGNED])
def test_case_is_voided_from_any_state_with_its_reason_as_a_fact(status: str, reader: User, case: Case) -> None:
    Case.objects.filter(pk=case.pk).update(status=status)

    services.void_case(actor=reader, case=case, reason="  Wrong patient ")

    case.refresh_from_db()
    assert case.status == CaseStatus.VOID
    void = Void.objects.get(case=case)
    assert (void.reason, void.by, void.image) == ("Wrong patient", reader, None)
    (event,) = events("case_voided")
    assert "Wrong" not in str(event.facts)


@pytest.mark.parametrize(
    ("reason", "code"), [("", "reason_missing"), ("   ", "reason_missing"), ("x" * 501, "reason_too_long")]
)
def test_case_is_not_voided_without_a_reason(reason: str, code: str, reader: User, case: Case) -> None:
    with pytest.raises(InvalidInput) as refused:
        services.void_case(actor=reader, case=case, reason=reason)

    assert refused.value.code == code
    case.refresh_from_db()
    assert case.status == CaseStatus.OPEN
    assert not Void.objects.exists()


def test_case_is_voided_once(reader: User, case: Case) -> None:
    services.void_case(actor=reader, case=case, reason="Wrong patient")

    with pytest.raises(Conflict, match="already_void"):
        services.void_case(actor=reader, case=case, reason="Again")
    assert Void.objects.count() == 1


def test_void_case_takes_no_pictures(technologist: User, reader: User, case: Case) -> None:
    services.void_case(actor=reader, case=case, reason="Wrong patient")
    upload = SimpleUploadedFile("cell.jpg", jpeg_of_cell(3))

    with pytest.raises(Conflict, match="case_void"):
        services.add_image(actor=technologist, case=case, upload=upload)


@pytest.mark.django_db(transaction=True)
def test_two_who_void_at_the_same_moment_make_one_fact(reader: User, case: Case) -> None:
    together, refused = threading.Barrier(4), []

    def void() -> None:
        try:
            together.wait()
            services.void_case(actor=reader, case=case, reason="Wrong patient")
        except HematoVisionError as error:
            refused.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=void) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert refused == ["already_void"] * 3
    assert Void.objects.count() == 1


# --- Who may ---------------------------------------------------------------------------------------------------

ACTS: dict[str, Callable[[User, Case], Any]] = {
    "case-edit": lambda actor, case: services.change_case(actor=actor, case=case, specimen="EDTA"),
    "case-assign": lambda actor, case: services.assign_case(actor=actor, case=case, reader=None),
    "case-void": lambda actor, case: services.void_case(actor=actor, case=case, reason="Wrong patient"),
}
MAY = {
    "case-edit": {"technologist", "reader", "service_account"},
    "case-assign": {"technologist", "reader", "service_account"},
    "case-void": {"reader"},
}
CAST = ["technologist", "reader", "auditor", "lab_admin", "service_account", "stranger", "operator"]


@pytest.mark.parametrize("who", CAST)
@pytest.mark.parametrize("act", sorted(ACTS))
def test_only_those_who_may_act_on_a_case_do(act: str, who: str, case: Case, request: pytest.FixtureRequest) -> None:
    actor = request.getfixturevalue(who)

    if who in MAY[act]:
        ACTS[act](actor, case)
    else:
        with pytest.raises(NotAllowed):
            ACTS[act](actor, case)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("who", [one for one in CAST if one != "service_account"])
@pytest.mark.parametrize("page", sorted(ACTS))
def test_page_of_an_act_is_404_where_the_case_is_not_visible_and_403_where_it_is_not_allowed(
    page: str, who: str, method: str, sign_in: SignIn, case: Case, request: pytest.FixtureRequest
) -> None:
    client = sign_in(request.getfixturevalue(who))

    status = getattr(client, method)(reverse(page, args=[case.pk])).status_code

    if who in {"stranger", "operator"}:
        assert status == 404
    elif who not in MAY[page]:
        assert status == 403
    else:
        assert status in {200, 302, 400}


# --- Pages -----------------------------------------------------------------------------------------------------


def form_of(case: Case, **fields: str) -> dict[str, str]:
    """What the form of case-edit sends when only `fields` were touched."""
    shown = timezone.localtime(case.collected_at).strftime("%Y-%m-%dT%H:%M") if case.collected_at else ""
    wbc = "" if case.wbc_value is None else str(case.wbc_value)
    same = {
        "patient_pseudonym": case.patient_pseudonym,
        "specimen": case.specimen,
        "collected_at": shown,
        "wbc_value": wbc,
        "wbc_source": case.wbc_source,
    }
    return same | fields


def test_form_changes_what_was_touched_and_keeps_the_seconds_of_the_rest(
    sign_in: SignIn, technologist: User, case: Case
) -> None:
    moment = datetime(2026, 11, 2, 8, 15, 42, tzinfo=UTC)
    case = services.change_case(actor=technologist, case=case, collected_at=moment, patient_pseudonym="P-1")
    client, url = sign_in(technologist), reverse("case-edit", args=[case.pk])

    assert 'value="2026-11-02T08:15"' in client.get(url).content.decode()
    response = client.post(url, form_of(case, specimen="Capillary"))

    assert response["Location"] == reverse("case", args=[case.pk])
    case.refresh_from_db()
    assert (case.specimen, case.collected_at, case.patient_pseudonym) == ("Capillary", moment, "P-1")
    assert events("case_changed")[0].facts == {"fields": ["specimen"]}


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("wbc_value", "5.4", "Say where the WBC value comes from"),
        ("wbc_value", "-1", "greater than or equal to 0"),
        ("wbc_value", "NaN", "Enter a number"),
        ("collected_at", "1850-01-01T00:00", "before 1900"),
        ("specimen", "x" * 81, "at most 80 characters"),
    ],
)
def test_bad_change_is_said_beside_its_field(
    field: str, value: str, sentence: str, sign_in: SignIn, technologist: User, case: Case
) -> None:
    response = sign_in(technologist).post(reverse("case-edit", args=[case.pk]), form_of(case, **{field: value}))

    assert response.status_code == 400
    assert sentence in response.content.decode()
    assert not response.context["form"].non_field_errors()
    assert not events("case_changed")


@pytest.mark.parametrize(("status", "sentence"), [("released", "Amend or correct it first"), ("void", "is void")])
def test_page_of_a_closed_case_says_why_nothing_can_be_changed(
    status: str, sentence: str, sign_in: SignIn, technologist: User, case: Case
) -> None:
    Case.objects.filter(pk=case.pk).update(status=status)
    client, url = sign_in(technologist), reverse("case-edit", args=[case.pk])

    page = client.get(url).content.decode()
    assert sentence in page
    assert 'name="specimen"' not in page
    assert client.post(url, form_of(case, specimen="EDTA")).status_code == 400
    case.refresh_from_db()
    assert case.specimen == ""


def test_assign_page_offers_oneself_first_then_active_colleagues_and_nobody(
    sign_in: SignIn, technologist: User, reader: User, auditor: User, stranger: User, case: Case
) -> None:
    gone = person("gone@north.example", "Gil Gone", case.laboratory, "reader")  # type: ignore[arg-type]
    User.objects.filter(pk=gone.pk).update(is_active=False)

    form = sign_in(technologist).get(reverse("case-assign", args=[case.pk])).context["form"]

    names = [name for _, name in form.fields["reader"].choices]
    assert names == ["nobody", "Tess Tanner (you)", "Ruth Reyes"]


def test_case_is_assigned_by_form(sign_in: SignIn, technologist: User, reader: User, case: Case) -> None:
    client, url = sign_in(technologist), reverse("case-assign", args=[case.pk])

    response = client.post(url, {"reader": str(reader.pk)}, follow=True)

    case.refresh_from_db()
    assert case.assigned_to == reader
    assert "assigned to Ruth Reyes" in response.content.decode()
    client.post(url, {"reader": ""})
    case.refresh_from_db()
    assert case.assigned_to is None


@pytest.mark.parametrize("who", ["stranger", "auditor", "nonsense"])
def test_assign_form_refuses_who_is_not_on_its_list(
    who: str, sign_in: SignIn, technologist: User, case: Case, request: pytest.FixtureRequest
) -> None:
    value = who if who == "nonsense" else str(request.getfixturevalue(who).pk)

    response = sign_in(technologist).post(reverse("case-assign", args=[case.pk]), {"reader": value})

    assert response.status_code == 400
    page = response.content.decode()
    assert "That person can&#x27;t be chosen here" in page
    assert value not in page


def test_case_is_voided_by_form_and_stays_readable(
    sign_in: SignIn, reader: User, technologist: User, make_image: MakeImage
) -> None:
    image = make_image()
    client = sign_in(reader)

    response = client.post(reverse("case-void", args=[image.case_id]), {"reason": "Wrong patient"})

    assert response["Location"] == reverse("case", args=[image.case_id])
    assert Case.objects.get(pk=image.case_id).status == CaseStatus.VOID
    for somebody in (reader, technologist):
        page = sign_in(somebody).get(reverse("case", args=[image.case_id]))
        assert page.status_code == 200
        assert "void" in page.content.decode().lower()
    assert "void already" in client.get(reverse("case-void", args=[image.case_id])).content.decode()
    assert client.post(reverse("case-void", args=[image.case_id]), {"reason": "Again"}).status_code == 400


@pytest.mark.parametrize(
    ("reason", "sentence"), [("", "Say why"), ("  ", "Say why"), ("x" * 501, "at most 500 characters")]
)
def test_void_form_asks_for_a_reason(reason: str, sentence: str, sign_in: SignIn, reader: User, case: Case) -> None:
    response = sign_in(reader).post(reverse("case-void", args=[case.pk]), {"reason": reason})

    assert response.status_code == 400
    assert sentence in response.content.decode()
    assert not Void.objects.exists()
