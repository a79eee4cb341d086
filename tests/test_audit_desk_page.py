"""The audit trail as the auditor reads it: narrowed, linked, and never by a look at every row."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts import audit, audit_filters
from accounts.models import AuditEvent, AuditEventToSeal, User
from accounts.seals import seal_events
from classifier.models import Case, CellImage

SignIn = Callable[[User], Client]
LIST = "admin:accounts_auditevent_changelist"


@pytest.fixture(autouse=True)
def heads_file(settings: Any, tmp_path: Any) -> None:
    settings.AUDIT_HEADS_FILE = tmp_path / "heads.jsonl"


@pytest.fixture
def desk(sign_in: SignIn, auditor: User) -> Callable[..., list[str]]:
    """The ids of the events that the auditor's list shows for the parameters."""
    client = sign_in(auditor)

    def listed(**parameters: str) -> list[str]:
        answer = client.get(reverse(LIST), parameters)
        assert answer.status_code == 200, answer
        return [str(event.pk) for event in answer.context["cl"].result_list]

    return listed


def address(event: AuditEvent) -> str:
    return reverse("admin:accounts_auditevent_change", args=[event.pk])


def test_trail_is_narrowed_by_action_target_and_actor(
    desk: Callable[..., list[str]], technologist: User, reader: User, case: Case
) -> None:
    viewed = audit.record(action="case_viewed", actor=reader, target=case, page="case")
    machine = audit.record(
        action="images_classified", actor=None, target=case, laboratory=case.laboratory_id, images=[]
    )
    assert desk(action="case_viewed") == [str(viewed.pk)]
    assert desk(actor=str(reader.pk)) == [str(viewed.pk)]
    assert str(machine.pk) in desk(actor="machine")
    assert str(viewed.pk) not in desk(actor="machine")
    assert {str(viewed.pk), str(machine.pk)} <= set(desk(target_type="case"))
    assert desk(target_type="report") == []
    assert desk(actor="nobody") == []


@pytest.mark.parametrize("few", [0, 1, 2, 3])
def test_trail_of_a_type_is_the_same_whether_there_are_few_of_it_or_many(
    desk: Callable[..., list[str]], reader: User, case: Case, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_filters, "FEW", few)
    viewed = [str(audit.record(action="case_viewed", actor=reader, target=case, page="case").pk) for _ in range(2)]
    assert desk(target_type="case", action="case_viewed") == viewed[::-1]
    assert desk(target_type="report") == []


def test_trail_is_narrowed_by_days(desk: Callable[..., list[str]], technologist: User) -> None:
    event = audit.record(action="case_viewed", actor=technologist, page="case")
    today = timezone.localdate()
    day = timedelta(days=1)
    pk = str(event.pk)
    assert pk in desk(**{"from": str(today), "to": str(today)})
    assert pk not in desk(**{"from": str(today + day)})
    assert pk not in desk(to=str(today - day))
    assert pk in desk(**{"to": "9999-12-31"})


def test_day_that_is_none_is_refused_without_an_error(sign_in: SignIn, auditor: User) -> None:
    answer = sign_in(auditor).get(reverse(LIST), {"from": "yesterday"})
    assert answer.status_code == 302
    assert "e=1" in answer["Location"]


def test_trail_of_one_thing_and_of_one_request_is_found_by_id(
    desk: Callable[..., list[str]], sign_in: SignIn, reader: User, case: Case
) -> None:
    opened = AuditEvent.objects.get(action="case_opened")
    sign_in(reader).get(reverse("case", args=[case.pk]))
    viewed = AuditEvent.objects.get(action="case_viewed")
    assert desk(q=str(case.pk)) == [str(viewed.pk), str(opened.pk)]
    assert desk(q=f" {viewed.request_id} ") == [str(viewed.pk)]
    assert desk(q=str(opened.pk)) == [str(opened.pk)]
    assert desk(q=case.accession_number) == []
    assert desk(q=str(case.pk)[:-1]) == []


def test_trail_of_another_laboratory_is_not_found_by_id(sign_in: SignIn, stranger: User, case: Case) -> None:
    User.objects.filter(pk=stranger.pk).update(role="auditor")
    stranger.refresh_from_db()
    page = sign_in(stranger).get(reverse(LIST), {"q": str(case.pk)})
    assert list(page.context["cl"].result_list) == []


def test_event_links_to_what_it_is_about_and_says_where_it_is_sealed(
    sign_in: SignIn, auditor: User, technologist: User, case: Case, make_image: Callable[..., CellImage]
) -> None:
    image = make_image()
    client = sign_in(auditor)
    event = AuditEvent.objects.get(action="image_uploaded")

    page = client.get(address(event)).content.decode()
    assert reverse("image", args=[image.pk]) in page
    assert str(case.pk) in page
    assert "Uploaded an image" in page
    assert "Waits for the next seal" in page
    assert image.original_name not in page

    seal_events()
    assert "Sealed in block 1" in client.get(address(event)).content.decode()


def test_event_that_nobody_will_seal_does_not_say_that_it_waits(
    sign_in: SignIn, auditor: User, technologist: User
) -> None:
    event = audit.record(action="tested", actor=technologist)
    AuditEventToSeal.objects.filter(pk=event.pk).delete()
    seal_events()

    page = sign_in(auditor).get(address(event)).content.decode()

    assert "Waits for the next seal" not in page
    assert "In none of the seals made next, and not waiting for one: run manage.py verify_audit" in page


def test_every_kind_of_target_is_shown(sign_in: SignIn, auditor: User, technologist: User, case: Case) -> None:
    """Also one whose kind no longer exists, or that has no page."""
    events = [audit.record(action="case_changed", actor=technologist, target=case, fields=["specimen"], none=None)]
    for target_type, target_id in (("gone", "1"), ("case", "no id"), ("laboratorysettings", "7"), ("", "")):
        event = audit.event(action="unknown_action", actor=technologist)
        event.target_type, event.target_id = target_type, target_id
        event.save()
        events.append(event)
    client = sign_in(auditor)
    assert client.get(reverse(LIST)).status_code == 200
    for event in events:
        assert client.get(address(event)).status_code == 200
    assert "unknown_action" in client.get(address(events[-1])).content.decode()


def test_list_never_asks_for_every_row(sign_in: SignIn, auditor: User, technologist: User) -> None:
    """No count without an end, nothing distinct, whatever the list is narrowed by."""
    audit.record_many(audit.event(action="case_viewed", actor=technologist, page="case") for _ in range(1005))
    client = sign_in(auditor)
    for parameters in ({}, {"action": "case_viewed"}, {"actor": str(technologist.pk)}, {"from": "2020-01-01"}):
        with CaptureQueriesContext(connection) as queries:
            answer = client.get(reverse(LIST), parameters)
        assert answer.status_code == 200
        asked = [query["sql"] for query in queries if "accounts_auditevent" in query["sql"]]
        assert asked
        # The second one is for the keys that the first one gave.
        assert all(("LIMIT" in sql or '"id" IN (' in sql) and "DISTINCT" not in sql for sql in asked), asked
    assert client.get(reverse(LIST), {"p": "2"}).status_code == 200
