"""Break-glass: one case of another laboratory, for an hour, for reading, and everybody concerned is told."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import AuditEvent, User
from accounts.roles import ROLE_VERBS, Role, Verb
from classifier import services, tasks, urls
from classifier.emergency_middleware import OPENED_PAGES
from classifier.errors import HematoVisionError, TooManyTries
from classifier.models import (
    Case,
    CellImage,
    EmergencyAccess,
    EmergencyEnd,
    ModelVersion,
    Notification,
    Review,
)
from tests.conftest import PASSWORD, person
from tests.emergencies import REASON, asked, opened
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
# Every address of a case or an image, found in the URL conf, so that a new one can't be forgotten.
ABOUT_SOMETHING = {
    str(pattern.name): sorted(pattern.pattern.converters)
    for pattern in urls.urlpatterns
    if {"case_id", "image_id"} & set(pattern.pattern.converters)
}
OTHERS = {"version": 1, "kind": "pdf"}


@pytest.fixture
def released(
    make_image: MakeImage, model_version: ModelVersion, technologist: User, reader: User
) -> tuple[Case, CellImage]:
    """A case of Northside with one reviewed image and a signed report."""
    image = make_image("classified")
    prediction_of(image, model_version)
    services.review_image(actor=technologist, image=image, verdict="CONFIRMED")
    services.release_report(actor=reader, case=image.case, password=PASSWORD, reason="one cell")
    image.refresh_from_db()
    return Case.objects.get(pk=image.case_id), image


def address(page: str, case: Case, image: CellImage) -> str:
    ids = {"case_id": case.pk, "image_id": image.pk, **OTHERS}
    return reverse(page, kwargs={name: ids[name] for name in ABOUT_SOMETHING[page]})


# --- What opens, and what does not -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(OPENED_PAGES - {"image-thumbnail"}))
def test_page_of_the_case_opens_for_the_hour_and_is_gone_after_it(
    page: str, sign_in: SignIn, stranger: User, released: tuple[Case, CellImage]
) -> None:
    url = address(page, *released)
    client = sign_in(stranger)
    assert client.get(url, headers={"X-Fragment": "1"}).status_code == 404

    opened(stranger, released[0], minutes=0)
    assert client.get(url, headers={"X-Fragment": "1"}).status_code == 404

    opened(stranger, released[0])
    response = client.get(url, headers={"X-Fragment": "1"}, follow=True)
    # It is open, and asks for the cursor that this test does not send.
    assert response.status_code == (400 if page == "case-changes" else 200)


def test_pages_that_open_are_the_ones_that_read_a_case() -> None:
    """A new address of a case or an image stays closed until somebody lists it."""
    closed = set(ABOUT_SOMETHING) - OPENED_PAGES
    assert set(ABOUT_SOMETHING) >= OPENED_PAGES
    assert {
        "case-amend",
        "case-assign",
        "case-edit",
        "case-release",
        "case-trial",
        "case-void",
        "image-requeue",
        "image-review",
        "image-void",
        "upload-to-case",
    } <= closed


@pytest.mark.parametrize("page", sorted(set(ABOUT_SOMETHING) - OPENED_PAGES))
def test_nothing_can_be_written_in_an_emergency(
    page: str, sign_in: SignIn, stranger: User, released: tuple[Case, CellImage]
) -> None:
    opened(stranger, released[0])
    before = (Review.objects.count(), CellImage.objects.count(), Case.objects.get(pk=released[0].pk).status)

    response = sign_in(stranger).post(address(page, *released), {"verdict": "WITHDRAWN", "reason": "x"})

    assert response.status_code == 403
    assert (Review.objects.count(), CellImage.objects.count(), Case.objects.get(pk=released[0].pk).status) == before


def test_service_refuses_what_a_page_would_have_let_through(stranger: User, released: tuple[Case, CellImage]) -> None:
    case, image = released
    opened(stranger, case)

    with pytest.raises(HematoVisionError) as refused:
        services.amend_report(actor=stranger, case=case, kind="amended", reason="x")
    assert refused.value.code == "not_allowed"
    with pytest.raises(HematoVisionError) as refused:
        services.review_image(actor=stranger, image=image, verdict="CONFIRMED")
    assert refused.value.code == "not_allowed"


def test_opened_pages_offer_nothing_that_writes_and_bear_the_banner(
    sign_in: SignIn, stranger: User, released: tuple[Case, CellImage], make_image: MakeImage, technologist: User
) -> None:
    case, image = released
    access = opened(stranger, case)
    client = sign_in(stranger)

    for page in ("case", "image", "report"):
        content = client.get(address(page, case, image)).content.decode()
        assert "Emergency access to a case of Northside until" in content
        assert f"{access.expires_at:%H:%M} UTC" in content
        for act in (
            "case-edit",
            "case-assign",
            "case-void",
            "case-amend",
            "case-release",
            "case-trial",
            "image-review",
        ):
            assert address(act, case, image) not in content
        assert f"{address('report', case, image)}fhir/" not in content

    pdf = client.get(address("report-file", case, image))
    assert pdf["Content-Type"] == "application/pdf"
    others = [
        reverse("report-file", kwargs={"case_id": case.pk, "version": 1, "kind": kind})
        for kind in ("fhir", "csv", "cells", "json")
    ]
    assert [client.get(each).status_code for each in others] == [403] * 4


def test_own_pages_bear_no_banner(
    sign_in: SignIn, stranger: User, reader: User, released: tuple[Case, CellImage]
) -> None:
    opened(stranger, released[0])

    assert "Emergency access to a case" not in sign_in(reader).get(address("case", *released)).content.decode()


def test_other_cases_of_that_laboratory_stay_closed(
    sign_in: SignIn, stranger: User, technologist: User, released: tuple[Case, CellImage], make_image: MakeImage
) -> None:
    other = services.open_case(actor=technologist, accession_number="A-2002")
    image = make_image("classified", case=other)
    opened(stranger, released[0])
    client = sign_in(stranger)

    for page in OPENED_PAGES:
        assert client.get(address(page, other, image), headers={"X-Fragment": "1"}).status_code == 404
    assert client.post(address("image-review", other, image)).status_code == 404


def test_earlier_cases_of_the_same_pseudonym_are_not_shown(
    sign_in: SignIn,
    stranger: User,
    reader: User,
    technologist: User,
    make_image: MakeImage,
    model_version: ModelVersion,
) -> None:
    earlier = services.open_case(actor=technologist, accession_number="A-0001", patient_pseudonym="P-77")
    now = services.open_case(actor=technologist, accession_number="A-0002", patient_pseudonym="P-77")
    for case in (earlier, now):
        prediction_of(make_image("classified", case=case), model_version)
    opened(stranger, now)

    assert "A-0001" in sign_in(reader).get(reverse("case", args=[now.pk])).content.decode()
    content = sign_in(stranger).get(reverse("case", args=[now.pk])).content.decode()
    assert "A-0002" in content
    assert "A-0001" not in content
    assert str(earlier.pk) not in content


def test_lists_and_search_do_not_show_the_case(
    sign_in: SignIn, stranger: User, released: tuple[Case, CellImage]
) -> None:
    case, image = released
    opened(stranger, case)
    client = sign_in(stranger)

    for page in ("cases", "images", "batches", "notifications", "trials"):
        content = client.get(reverse(page)).content.decode()
        assert case.accession_number not in content
        assert str(image.pk) not in content
    found = client.post(reverse("case-search"), {"accession_number": case.accession_number}, follow=True)
    assert str(case.pk) not in found.content.decode()
    assert str(image.pk) not in client.get(f"{reverse('image-cards')}?id={image.pk}").content.decode()


def test_bench_has_a_line_while_the_access_is_open(
    sign_in: SignIn, stranger: User, released: tuple[Case, CellImage]
) -> None:
    case, _ = released
    assert "Emergency access</strong>" not in sign_in(stranger).get(reverse("home")).content.decode()
    opened(stranger, case)

    content = sign_in(stranger).get(reverse("home")).content.decode()

    assert "Emergency access</strong> to a case of Northside" in content
    assert reverse("case", args=[case.pk]) in content
    assert case.accession_number not in content


def test_api_stays_closed_to_token_and_session_alike(
    api: Callable[..., APIClient], stranger: User, released: tuple[Case, CellImage]
) -> None:
    case, image = released
    opened(stranger, case)
    by_session = APIClient()
    by_session.force_login(stranger)

    report = case.reports.get()
    paths = [f"cases/{case.pk}/", f"cases/{case.pk}/differential/", f"images/{image.pk}/", f"reports/{report.pk}/"]
    for client in (api(stranger), by_session):
        assert [client.get(f"/api/v1/{path}").status_code for path in paths] == [404] * 4
        assert client.get("/api/v1/cases/").json()["results"] == []


def test_no_scope_holds_the_verb() -> None:
    from accounts.roles import SCOPE_VERBS

    assert [role for role in Role if Verb.EMERGENCY in ROLE_VERBS[role]] == [Role.READER]
    assert all(Verb.EMERGENCY not in verbs for verbs in SCOPE_VERBS.values())


def test_access_is_nobody_elses_and_ends_with_the_role(
    sign_in: SignIn, stranger: User, released: tuple[Case, CellImage]
) -> None:
    case, _ = released
    assert stranger.laboratory is not None
    colleague = person("saul@south.example", "Saul Sand", stranger.laboratory, Role.READER)
    opened(stranger, case)
    url = reverse("case", args=[case.pk])

    assert sign_in(colleague).get(url).status_code == 404
    assert sign_in(stranger).get(url).status_code == 200
    User.objects.filter(pk=stranger.pk).update(role=Role.TECHNOLOGIST)
    assert sign_in(stranger).get(url).status_code == 404


def test_reading_the_own_laboratory_costs_no_query_more(
    sign_in: SignIn, reader: User, technologist: User, released: tuple[Case, CellImage]
) -> None:
    counted = []
    for user in (technologist, reader):
        client = sign_in(user)
        with CaptureQueriesContext(connection) as queries:
            for page in ("case", "image", "image-file", "report"):
                assert client.get(address(page, *released)).status_code == 200
        counted.append(len(queries))

    # The technologist's role can't open anything in an emergency, the reader's can.
    assert counted[0] == counted[1]


# --- Opening ------------------------------------------------------------------------------------------------------


def test_reader_opens_a_case_by_the_form_and_both_laboratories_know(
    sign_in: SignIn,
    stranger: User,
    auditor: User,
    lab_admin: User,
    technologist: User,
    case: Case,
    django_capture_on_commit_callbacks: Any,
) -> None:
    client = sign_in(stranger)
    said = {"laboratory": "northside", "accession_number": "a-1001", "reason": REASON, "password": PASSWORD}

    with django_capture_on_commit_callbacks(execute=True):
        response = client.post(reverse("emergency"), said)

    assert response.status_code == 302
    assert mail.outbox == [], "a worker sends them, not the request"
    assert tasks.send_emergency_mails() == 2
    assert response["Location"] == reverse("case", args=[case.pk])
    access = EmergencyAccess.objects.get()
    assert (access.user, access.case, access.reason) == (stranger, case, REASON)
    assert timedelta(minutes=59) < access.expires_at - timezone.now() <= timedelta(hours=1)
    events = AuditEvent.objects.filter(action="emergency_access_opened")
    assert {event.laboratory_id for event in events} == {stranger.laboratory_id, case.laboratory_id}
    assert {(event.actor, event.target_id) for event in events} == {(stranger, str(case.pk))}
    assert all(event.facts["emergency"] == str(access.pk) for event in events)
    told = Notification.objects.filter(case=case, kind="emergency_access")
    assert {each.user for each in told} == {auditor, lab_admin}
    assert sorted(address for each in mail.outbox for address in each.to) == [lab_admin.email, auditor.email]


def test_nothing_that_goes_out_names_the_case_or_the_reason(
    stranger: User, auditor: User, released: tuple[Case, CellImage]
) -> None:
    case, image = released
    asked(stranger)
    tasks.send_emergency_mails()

    (sent,) = mail.outbox
    facts = " ".join(str(event.facts) for event in AuditEvent.objects.filter(action__startswith="emergency"))
    for secret in (case.accession_number, image.original_name, REASON, str(case.pk), "theatre"):
        assert secret not in sent.body
        assert secret not in sent.subject
    for secret in (case.accession_number, image.original_name, "theatre"):
        assert secret not in facts
    assert "Stan Stone of Southside" in sent.body


# --- Ending it before its hour is over ----------------------------------------------------------------------------


def test_reader_ends_the_own_access_and_both_laboratories_know(
    sign_in: SignIn, stranger: User, released: tuple[Case, CellImage]
) -> None:
    case, image = released
    access, earlier = opened(stranger, case), opened(stranger, case, minutes=30)
    client = sign_in(stranger)
    page = client.get(reverse("case", args=[case.pk])).content.decode()
    button = reverse("emergency-end", args=[access.pk])
    assert f'action="{button}"' in page
    assert f'action="{button}"' in client.get(reverse("emergency")).content.decode()

    for _ in range(2):
        response = client.post(button, follow=True)
        assert "The emergency access is ended." in response.content.decode()

    assert client.get(reverse("case", args=[case.pk])).status_code == 404
    assert client.get(reverse("image-file", args=[image.pk])).status_code == 404
    assert "Open now" not in response.content.decode()
    assert {end.access for end in EmergencyEnd.objects.filter(by=stranger)} == {access, earlier}
    events = AuditEvent.objects.filter(action="emergency_access_ended")
    assert sorted((str(event.laboratory), event.facts["emergency"]) for event in events) == sorted(
        (name, str(each.pk)) for name in ("Northside", "Southside") for each in (access, earlier)
    )
    # Another emergency is another access.
    asked(stranger)
    assert client.get(reverse("case", args=[case.pk])).status_code == 200


def test_administrator_of_the_case_ends_it_and_the_list_says_so(
    sign_in: SignIn, stranger: User, lab_admin: User, auditor: User, case: Case
) -> None:
    access = opened(stranger, case)
    button = reverse("emergency-end", args=[access.pk])
    client = sign_in(lab_admin)
    assert f'action="{button}"' in client.get(reverse("emergency")).content.decode()
    assert button not in sign_in(auditor).get(reverse("emergency")).content.decode()

    content = client.post(button, follow=True).content.decode()

    assert f"ended by {lab_admin}" in content
    assert button not in content
    assert sign_in(stranger).get(reverse("case", args=[case.pk])).status_code == 404
    events = AuditEvent.objects.filter(action="emergency_access_ended", actor=lab_admin)
    assert sorted(str(event.laboratory) for event in events) == ["Northside", "Southside"]


@pytest.mark.parametrize("actor", ["auditor", "reader", "technologist", "operator"])
def test_nobody_else_ends_it(
    actor: str, sign_in: SignIn, stranger: User, case: Case, request: pytest.FixtureRequest
) -> None:
    access = opened(stranger, case)
    user = request.getfixturevalue(actor)

    assert sign_in(user).post(reverse("emergency-end", args=[access.pk])).status_code in {403, 404}
    with pytest.raises(HematoVisionError, match="not_allowed"):
        services.end_emergency_access(actor=user, access=access)
    assert not EmergencyEnd.objects.exists()


def test_administrator_of_the_readers_laboratory_does_not_end_it(sign_in: SignIn, stranger: User, case: Case) -> None:
    assert stranger.laboratory is not None
    access = opened(stranger, case)
    theirs = person("sid@south.example", "Sid Sharp", stranger.laboratory, Role.ADMIN)

    assert sign_in(theirs).post(reverse("emergency-end", args=[access.pk])).status_code == 404
    assert not EmergencyEnd.objects.exists()


def test_access_whose_hour_is_over_has_nothing_to_end(sign_in: SignIn, stranger: User, case: Case) -> None:
    access = opened(stranger, case, minutes=0)

    content = sign_in(stranger).post(reverse("emergency-end", args=[access.pk]), follow=True).content.decode()

    assert "This access has ended by itself: its hour is over." in content
    assert not EmergencyEnd.objects.exists()


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [{"laboratory": "Nowhere"}, {"laboratory": "North"}, {"accession_number": "A-100"}, {"accession_number": "A-%"}],
)
def test_answer_is_the_same_whatever_of_the_two_was_wrong(
    fields: dict[str, str], stranger: User, sign_in: SignIn, case: Case
) -> None:
    said = {"laboratory": "Northside", "accession_number": "A-1001", "reason": REASON, "password": PASSWORD}

    response = sign_in(stranger).post(reverse("emergency"), {**said, **fields})

    assert response.status_code == 400
    assert "There is no case of that laboratory and accession number" in response.content.decode()
    assert PASSWORD not in response.content.decode()
    assert not EmergencyAccess.objects.exists()


def test_failed_tries_are_in_the_trail_without_what_was_typed(stranger: User, case: Case) -> None:
    with pytest.raises(HematoVisionError) as refused:
        asked(stranger, accession_number="SECRET-7")
    assert refused.value.code == "no_such_case"
    with pytest.raises(HematoVisionError):
        asked(stranger, laboratory="SECRET-8")

    events = AuditEvent.objects.filter(action="emergency_access_refused")
    # A laboratory that was named rightly knows of it as well.
    assert sorted(str(event.laboratory) for event in events) == ["Northside", "Southside", "Southside"]
    assert "SECRET" not in " ".join(f"{event.facts} {event.target_id}" for event in events)


def test_guessing_ends_after_five_tries_even_with_the_right_number(stranger: User, case: Case) -> None:
    for number in range(5):
        with pytest.raises(HematoVisionError, match="no_such_case"):
            asked(stranger, accession_number=f"B-{number}")

    with pytest.raises(TooManyTries):
        asked(stranger)
    assert not EmergencyAccess.objects.exists()


def test_own_password_is_asked_again(stranger: User, case: Case) -> None:
    for _ in range(5):
        with pytest.raises(HematoVisionError) as refused:
            asked(stranger, password="wrong")
        assert refused.value.code == "wrong_password"
        assert "Nothing was opened" in refused.value.message
    with pytest.raises(TooManyTries):
        asked(stranger)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"reason": "  "}, "reason_missing"),
        ({"reason": "x" * 501}, "reason_too_long"),
        ({"reason": "a\x00b"}, "unstorable_text"),
        ({"laboratory": "SOUTHSIDE"}, "own_laboratory"),
    ],
)
def test_opening_is_refused_in_words(fields: dict[str, str], code: str, stranger: User, case: Case) -> None:
    with pytest.raises(HematoVisionError) as refused:
        asked(stranger, **fields)
    assert refused.value.code == code


@pytest.mark.parametrize("actor", ["technologist", "auditor", "lab_admin", "service_account", "operator"])
def test_only_a_reader_opens_a_case(
    actor: str, other_laboratory: Any, sign_in: SignIn, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(actor)

    with pytest.raises(HematoVisionError) as refused:
        asked(user, laboratory="Southside")
    assert refused.value.code == "not_allowed"
    assert sign_in(user).post(reverse("emergency"), {"laboratory": "Southside"}).status_code == 403


# --- The laboratory whose case it is ------------------------------------------------------------------------------


def test_every_look_is_in_the_trail_of_that_laboratory(
    sign_in: SignIn, stranger: User, released: tuple[Case, CellImage]
) -> None:
    case, image = released
    access = opened(stranger, case)
    client = sign_in(stranger)
    for page in ("case", "image", "image-file", "report", "report-file"):
        client.get(address(page, case, image))
    client.get(address("case-differential", case, image), headers={"X-Fragment": "1"})

    events = AuditEvent.objects.filter(action="emergency_viewed", laboratory=case.laboratory).order_by("at", "id")

    assert [event.facts["page"] for event in events] == ["case", "image", "image-file", "report", "report-file"]
    assert {event.facts["emergency"] for event in events} == {str(access.pk)}
    assert {event.actor for event in events} == {stranger}
    assert [event.target_type for event in events] == ["case", "cellimage", "cellimage", "report", "report"]


@pytest.mark.parametrize("actor", ["auditor", "lab_admin"])
def test_laboratory_sees_who_opened_its_cases_and_why(
    actor: str, sign_in: SignIn, stranger: User, case: Case, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(actor)
    with_access = asked(stranger)
    client = sign_in(user)

    notification = Notification.objects.get(user=user)
    response = client.post(reverse("notification-open", args=[notification.pk]), follow=True)
    content = response.content.decode()

    assert response.redirect_chain[-1][0] == reverse("emergency")
    assert with_access.reason in content
    assert "Stan Stone, Southside" in content
    assert case.accession_number in content


def test_laboratory_of_the_reader_sees_that_it_was_done_and_nothing_of_the_case(
    sign_in: SignIn, stranger: User, case: Case
) -> None:
    assert stranger.laboratory is not None
    asked(stranger)
    their_auditor = person("sue@south.example", "Sue Sharp", stranger.laboratory, Role.AUDITOR)

    content = sign_in(their_auditor).get(reverse("emergency")).content.decode()

    assert "Stan Stone" in content
    assert "Northside" in content
    for secret in (case.accession_number, str(case.pk), REASON):
        assert secret not in content


@pytest.mark.parametrize(("actor", "status"), [("technologist", 403), ("operator", 403), ("reader", 200)])
def test_page_is_for_those_concerned(
    actor: str, status: int, sign_in: SignIn, stranger: User, case: Case, request: pytest.FixtureRequest
) -> None:
    asked(stranger)
    response = sign_in(request.getfixturevalue(actor)).get(reverse("emergency"))

    assert response.status_code == status
    # A reader may open cases of others; who opened those of the own laboratory is for its auditors.
    assert REASON not in response.content.decode()
