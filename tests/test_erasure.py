"""Erasing a patient pseudonym: it is nowhere any more, and that there was one stays known."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import AuditEvent, User
from classifier import services
from classifier.errors import HematoVisionError
from classifier.models import Case, CellImage, IdempotentRequest, PseudonymErasure, Report
from classifier.retention import erasures_of
from tests.conftest import PASSWORD

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
PSEUDONYM = "PLANTED-77"
pytestmark = pytest.mark.django_db


@pytest.fixture
def signed(make_image: MakeImage, technologist: User, reader: User) -> Report:
    """A signed report of a case that bears the pseudonym."""
    case = services.open_case(actor=technologist, accession_number="A-77", patient_pseudonym=PSEUDONYM)
    make_image("reviewed", case=case)
    return services.release_report(actor=reader, case=case, password=PASSWORD, reason="one cell")


def every_text() -> str:
    """All that the database holds, as one text."""
    rows: list[Any] = []
    for model in apps.get_models(include_auto_created=True):
        if model._meta.managed and not model._meta.proxy:
            rows += model._base_manager.values_list()
    return "\n".join(map(str, rows))


def erase(actor: User, seen: int = 1, pseudonym: str = PSEUDONYM) -> PseudonymErasure:
    return services.erase_pseudonym(actor=actor, pseudonym=pseudonym, reason="Asked by the patient", seen=seen)


def exports_of(client: Client, api: APIClient, report: Report) -> dict[str, bytes]:
    files = {
        kind: client.get(reverse("report-file", args=[report.case_id, report.version, kind])).content
        for kind in ("pdf", "fhir", "json", "csv", "cells")
    }
    pages = {"page": client.get(reverse("report", args=[report.case_id, 1])).content}
    return {**files, **pages, "api": api.get(reverse("api-report", args=[report.pk])).content}


def test_signed_report_shows_the_pseudonym_and_does_not_hold_it(
    signed: Report, sign_in: SignIn, api: Callable[..., APIClient], reader: User
) -> None:
    assert PSEUDONYM not in signed.payload_json
    shown = exports_of(sign_in(reader), api(reader), signed)
    for kind in ("page", "fhir", "json", "api"):
        assert PSEUDONYM.encode() in shown[kind], kind


def test_erased_pseudonym_is_nowhere_any_more(
    signed: Report, sign_in: SignIn, api: Callable[..., APIClient], reader: User, lab_admin: User
) -> None:
    before = exports_of(sign_in(reader), api(reader), signed)
    assert PSEUDONYM in every_text()

    erase(lab_admin)

    assert PSEUDONYM not in every_text()
    signed.refresh_from_db()
    after = exports_of(sign_in(reader), api(reader), signed)
    assert not any(PSEUDONYM.encode() in content for content in after.values())
    # The signed text is what it was, to the byte.
    assert signed.is_whole
    assert json.loads(after["json"])["payload"] == json.loads(before["json"])["payload"]
    numbers = [list(csv.reader(io.StringIO(each["csv"].decode("utf-8-sig")))) for each in (before, after)]
    assert numbers[0] == numbers[1]
    assert "patient_pseudonym" not in json.loads(after["json"])["payload"]["case"]


def test_evidence_says_that_there_was_one_and_not_which(
    signed: Report, lab_admin: User, sign_in: SignIn, reader: User
) -> None:
    erasure = erase(lab_admin)

    assert erasure.cases == [str(signed.case_id)]
    assert len(erasure.digest) == 64
    events = AuditEvent.objects.filter(action__startswith="pseudonym_eras")
    assert {(event.action, event.target_id) for event in events} == {
        ("pseudonym_erased", str(signed.case_id)),
        ("pseudonym_erasure_made", str(erasure.pk)),
    }
    page = sign_in(reader).get(reverse("case", args=[signed.case_id])).content.decode()
    assert "A patient pseudonym was erased on" in page
    # Who knows the pseudonym can ask whether it was erased; another laboratory learns nothing of it.
    assert erasures_of(lab_admin.laboratory_id, PSEUDONYM).get() == erasure  # type: ignore[arg-type]
    assert not erasures_of(lab_admin.laboratory_id, "PLANTED-78").exists()  # type: ignore[arg-type]


def test_erasing_it_again_changes_nothing(signed: Report, lab_admin: User) -> None:
    first = erase(lab_admin)
    assert erase(lab_admin, seen=0) == first
    assert PseudonymErasure.objects.count() == 1


def test_digest_is_found_under_the_key_of_before(signed: Report, lab_admin: User, settings: Any) -> None:
    erasure = erase(lab_admin)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another key of now", [settings.SECRET_KEY]
    assert erasures_of(lab_admin.laboratory_id, PSEUDONYM).get() == erasure  # type: ignore[arg-type]


def test_one_case_on_legal_hold_holds_all(signed: Report, technologist: User, lab_admin: User) -> None:
    services.open_case(actor=technologist, patient_pseudonym=PSEUDONYM)
    services.place_hold(actor=lab_admin, case=signed.case, reason="Court order")

    with pytest.raises(HematoVisionError) as refused:
        erase(lab_admin, seen=2)
    assert refused.value.code == "on_legal_hold"
    assert Case.objects.filter(patient_pseudonym=PSEUDONYM).count() == 2

    services.lift_hold(actor=lab_admin, case=signed.case, reason="Settled")
    assert len(erase(lab_admin, seen=2).cases) == 2


@pytest.mark.parametrize(
    ("pseudonym", "seen", "code"),
    [("NOBODY", 0, "pseudonym_unknown"), ("", 0, "pseudonym_unknown"), (PSEUDONYM, 5, "cases_changed")],
)
def test_refusal_has_a_code(pseudonym: str, seen: int, code: str, signed: Report, lab_admin: User) -> None:
    with pytest.raises(HematoVisionError) as refused:
        erase(lab_admin, seen=seen, pseudonym=pseudonym)
    assert refused.value.code == code
    assert not PseudonymErasure.objects.exists()


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor", "service_account", "stranger"])
def test_only_an_administrator_of_the_laboratory_erases(
    who: str, signed: Report, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(HematoVisionError):
        erase(request.getfixturevalue(who))
    assert Case.objects.filter(patient_pseudonym=PSEUDONYM).exists()


def test_the_same_pseudonym_in_another_laboratory_stays(signed: Report, stranger: User, lab_admin: User) -> None:
    theirs = services.open_case(actor=stranger, patient_pseudonym=PSEUDONYM)
    erase(lab_admin)
    theirs.refresh_from_db()
    assert theirs.patient_pseudonym == PSEUDONYM


def test_page_shows_the_number_first_and_puts_the_pseudonym_in_no_address(
    signed: Report, lab_admin: User, sign_in: SignIn
) -> None:
    client = sign_in(lab_admin)
    url = reverse("erasure")

    shown = client.post(url, {"pseudonym": PSEUDONYM, "reason": "Asked"})
    assert "Erase it from 1 case" in shown.content.decode()
    assert Case.objects.filter(patient_pseudonym=PSEUDONYM).exists()
    done = client.post(url, {"pseudonym": PSEUDONYM, "reason": "Asked", "seen": "1"})
    assert (done.status_code, PSEUDONYM in done["Location"]) == (302, False)
    assert not Case.objects.filter(patient_pseudonym=PSEUDONYM).exists()

    again = client.post(url, {"pseudonym": PSEUDONYM, "reason": "Asked"}).content.decode()
    assert "This pseudonym was erased on" in again
    unknown = client.post(url, {"pseudonym": "NOBODY", "reason": "Asked"}).content.decode()
    assert "No case of your laboratory has this pseudonym" in unknown
    held = client.post(url, {"pseudonym": PSEUDONYM, "reason": f"of {PSEUDONYM}"})
    assert held.status_code == 400


def test_kept_answers_forget_it(technologist: User, lab_admin: User, api: Callable[..., APIClient]) -> None:
    client = api(technologist)
    body = {"accession_number": "A-78", "patient_pseudonym": PSEUDONYM}
    first = client.post(reverse("api-cases"), body, headers={"Idempotency-Key": "k-1"})
    assert first.status_code == 201
    assert PSEUDONYM in IdempotentRequest.objects.get().body

    erase(lab_admin)

    assert PSEUDONYM not in every_text()
    again = client.post(reverse("api-cases"), body, headers={"Idempotency-Key": "k-1"})
    assert (again.status_code, Case.objects.filter(accession_number="A-78").count()) == (409, 1)


@pytest.mark.parametrize("pseudonym", ["id", 'P"\\\u2028é', "Open"])
def test_kept_answers_of_others_are_not_forgotten(
    pseudonym: str, technologist: User, stranger: User, lab_admin: User, api: Callable[..., APIClient]
) -> None:
    clients = {actor: api(actor) for actor in (technologist, stranger)}

    def ask(actor: User, key: str, given: str) -> Any:
        body = {"patient_pseudonym": given, "specimen": pseudonym, "accession_number": f"A-{key}"}
        return clients[actor].post(reverse("api-cases"), body, headers={"Idempotency-Key": key})

    asked = {
        "theirs": (stranger, "theirs", pseudonym),
        "another": (technologist, "another", "P-1"),
        "other letters": (technologist, "letters", pseudonym.swapcase()),
    }
    for each in asked.values():
        assert ask(*each).status_code == 201
    assert ask(technologist, "own", pseudonym).status_code == 201

    erase(lab_admin, pseudonym=pseudonym)

    assert {name: ask(*each).status_code for name, each in asked.items()} == dict.fromkeys(asked, 201)
    assert ask(technologist, "own", pseudonym).status_code == 409
    assert IdempotentRequest.objects.filter(body="").count() == 1


def test_answers_that_list_cases_forget_it_too(
    technologist: User, lab_admin: User, api: Callable[..., APIClient]
) -> None:
    case = services.open_case(actor=technologist, accession_number="A-79", patient_pseudonym=PSEUDONYM)
    found = api(technologist).post(
        reverse("api-case-search"), {"accession_number": "A-79"}, headers={"Idempotency-Key": "k-2"}
    )
    assert found.json()["results"][0]["id"] == str(case.pk)
    assert PSEUDONYM in IdempotentRequest.objects.get().body
    erase(lab_admin)
    assert IdempotentRequest.objects.get().body == ""


def test_report_that_is_signed_after_an_erasure_has_none(
    signed: Report, lab_admin: User, reader: User, sign_in: SignIn
) -> None:
    services.amend_report(actor=reader, case=signed.case, kind="amended", reason="one more look")
    erase(lab_admin)
    second = services.release_report(actor=reader, case=signed.case, password=PASSWORD, reason="one cell")
    content = sign_in(reader).get(reverse("report-file", args=[signed.case_id, second.version, "fhir"])).content
    assert b'"resourceType":"Patient"' not in content.replace(b" ", b"")


def test_draft_that_was_looked_at_before_the_erasure_is_not_signed(
    make_image: MakeImage, technologist: User, reader: User, lab_admin: User, sign_in: SignIn
) -> None:
    """What the signer saw is no longer so."""
    case = services.open_case(actor=technologist, patient_pseudonym=PSEUDONYM)
    make_image("reviewed", case=case)
    page = sign_in(reader).get(reverse("case-release", args=[case.pk])).context["seen"]
    erase(lab_admin)
    with pytest.raises(HematoVisionError) as refused:
        services.release_report(actor=reader, case=case, password=PASSWORD, reason="one cell", seen=page)
    assert refused.value.code == "case_changed"
