"""Notifications over the API: one's own, the newest first, and read one by one."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from classifier.models import Case, Notification, NotificationKind
from classifier.services.notifications import notify

Api = Callable[..., APIClient]
LIST = "/api/v1/notifications/"


@pytest.fixture
def two(reader: User, case: Case) -> list[Notification]:
    """Two lines of the reader, the newest first."""
    for kind in (NotificationKind.CASE_ASSIGNED, NotificationKind.IMAGES_DONE):
        notify(user=reader, kind=kind, case=case)
    return list(Notification.objects.order_by("-at"))


def ids(answer: Any) -> list[str]:
    return [row["id"] for row in answer.json()["results"]]


def test_reader_lists_own_notifications_and_reads_one(
    api: Api, reader: User, case: Case, two: list[Notification]
) -> None:
    client = api(reader)
    newest, oldest = two

    listed = client.get(LIST).json()
    assert [row["kind"] for row in listed["results"]] == ["images_done", "case_assigned"]
    assert listed["results"][0] == {
        "id": str(newest.pk),
        "kind": "images_done",
        "case": str(case.pk),
        "report": None,
        "at": listed["results"][0]["at"],
        "read_at": None,
    }
    assert case.accession_number not in str(listed)

    read = client.post(f"{LIST}{newest.pk}/read/")
    assert (read.status_code, read.json()["id"]) == (200, str(newest.pk))
    assert read.json()["read_at"] is not None
    assert client.post(f"{LIST}{newest.pk}/read/").json() == read.json()
    assert ids(client.get(LIST, {"unread": "true"})) == [str(oldest.pk)]
    assert ids(client.get(LIST, {"unread": "false"})) == [str(newest.pk)]


def test_list_comes_in_pages(api: Api, reader: User, two: list[Notification]) -> None:
    client = api(reader)

    first = client.get(LIST, {"page_size": 1})
    second = client.get(first.json()["next"])

    assert ids(first) + ids(second) == [str(line.pk) for line in two]
    assert second.json()["next"] is None


def test_nobody_reads_what_was_told_to_somebody_else(
    api: Api, technologist: User, stranger: User, two: list[Notification]
) -> None:
    for other in (technologist, stranger):
        assert ids(api(other).get(LIST)) == []
        assert api(other).post(f"{LIST}{two[0].pk}/read/").status_code == 404
    assert not Notification.objects.exclude(read_at=None).exists()


@pytest.mark.parametrize(("query", "code"), [("kind=images_done", "unknown_filter"), ("unread=some", "invalid_input")])
def test_unknown_filters_are_refused(api: Api, reader: User, query: str, code: str) -> None:
    answer = api(reader).get(f"{LIST}?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, code)
