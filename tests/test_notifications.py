"""What people are told of while they are away: to whom it goes, once, and how it is read."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import AuditEvent, User
from classifier import pipeline, services
from classifier.models import Case, CellImage, ModelVersion, Notification, NotificationKind, Report
from classifier.services import notifications
from classifier.services.notifications import notify, notify_images_done
from tests.pictures import jpeg_of_cell

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
ASSIGNED, DONE = NotificationKind.CASE_ASSIGNED, NotificationKind.IMAGES_DONE
FRAGMENT = {"X-Fragment": "1"}


def lines_of(user: User) -> list[tuple[str, Case]]:
    return [(line.kind, line.case) for line in Notification.objects.filter(user=user).select_related("case")]


# --- To whom, and once -----------------------------------------------------------------------------------------


def test_second_notification_of_a_kind_renews_the_unread_one(reader: User, case: Case) -> None:
    notify(user=reader, kind=ASSIGNED, case=case)
    yesterday = timezone.now() - timedelta(days=1)
    Notification.objects.update(at=yesterday)

    notify(user=reader, kind=ASSIGNED, case=case)

    line = Notification.objects.get()
    assert line.at > yesterday + timedelta(hours=23)


def test_what_was_read_is_kept_beside_a_new_one(reader: User, case: Case) -> None:
    notify(user=reader, kind=ASSIGNED, case=case)
    services.mark_all_read(actor=reader)
    notify(user=reader, kind=ASSIGNED, case=case)

    assert Notification.objects.count() == 2
    assert Notification.objects.filter(read_at=None).count() == 1


def test_different_kinds_cases_and_people_have_lines_of_their_own(technologist: User, reader: User, case: Case) -> None:
    other = services.open_case(actor=technologist, accession_number="A-2")
    for user, kind, about in (
        (reader, ASSIGNED, case),
        (reader, DONE, case),
        (reader, ASSIGNED, other),
        (technologist, ASSIGNED, case),
    ):
        notify(user=user, kind=kind, case=about)

    assert Notification.objects.count() == 4


def test_nobody_is_told_of_an_own_act(reader: User, case: Case) -> None:
    notify(user=reader, kind=ASSIGNED, case=case, actor=reader)

    assert not Notification.objects.exists()


def test_nothing_is_told_to_those_who_left_or_belong_elsewhere(reader: User, stranger: User, case: Case) -> None:
    reader.is_active = False
    reader.save()

    notify(user=reader, kind=ASSIGNED, case=case)
    notify(user=stranger, kind=ASSIGNED, case=case)

    assert not Notification.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_acts_at_the_same_moment_make_one_line(reader: User, case: Case) -> None:
    together = threading.Barrier(4)
    faults: list[Exception] = []

    def tell() -> None:
        try:
            together.wait()
            notify(user=reader, kind=ASSIGNED, case=case)
        except Exception as fault:  # noqa: BLE001 - a thread's fault must reach the test
            faults.append(fault)
        finally:
            connection.close()

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert Notification.objects.count() == 1


# --- All pictures classified -----------------------------------------------------------------------------------


def test_uploader_of_many_pictures_is_told_when_the_last_one_is_classified(
    technologist: User, reader: User, case: Case, model_version: ModelVersion, settings: Any
) -> None:
    settings.MICRO_BATCH_SIZE = 6
    for seed in range(10):
        upload = SimpleUploadedFile("cell.jpg", jpeg_of_cell(seed))
        services.add_image(actor=technologist, case=case, upload=upload)

    pipeline.classify_queued()
    assert not Notification.objects.exists()
    pipeline.classify_queued()

    assert lines_of(technologist) == [(DONE, case)]
    assert lines_of(reader) == []


def test_last_picture_may_also_have_failed(
    technologist: User, case: Case, make_image: MakeImage, model_version: ModelVersion
) -> None:
    for _ in range(9):
        make_image("classified")
    last = make_image()
    last.file.storage.delete(str(last.file.name))

    pipeline.classify_queued()

    last.refresh_from_db()
    assert last.status == "failed"
    assert lines_of(technologist) == [(DONE, case)]


def test_last_picture_may_also_have_killed_its_worker_three_times(
    technologist: User, case: Case, make_image: MakeImage
) -> None:
    for _ in range(9):
        make_image("classified")
    long_ago = timezone.now() - timedelta(hours=1)
    make_image("claimed", claim_expires_at=long_ago, claimed_alone=True, faults=2)

    pipeline.sweep_expired_claims()

    assert lines_of(technologist) == [(DONE, case)]


@pytest.mark.parametrize(
    ("why", "count", "change"),
    [
        ("few pictures", 9, {}),
        ("long ago", 10, {"uploaded_at": timezone.now() - timedelta(days=2)}),
        ("one still waits", 10, {"status": "queued"}),
    ],
)
def test_nobody_is_told_of(why: str, count: int, change: dict[str, Any], make_image: MakeImage) -> None:
    images = [make_image("classified") for _ in range(count)]
    CellImage.objects.filter(pk=images[0].pk).update(**change)

    notify_images_done(images[1:])

    assert not Notification.objects.exists()


def test_void_pictures_and_void_cases_are_told_of_to_nobody(reader: User, case: Case, make_image: MakeImage) -> None:
    images = [make_image("classified") for _ in range(10)]
    services.void_image(actor=reader, image=images[0], reason="Smudged")
    notify_images_done(images)
    make_image("classified")
    services.void_case(actor=reader, case=case, reason="Wrong patient")
    notify_images_done(images)

    assert not Notification.objects.exists()


def test_each_uploader_counts_alone_and_only_those_of_the_micro_batch_are_told(
    technologist: User, reader: User, case: Case, make_image: MakeImage
) -> None:
    mine = [make_image("classified") for _ in range(10)]
    hers = [make_image("classified", uploaded_by=reader) for _ in range(3)]

    notify_images_done(hers)
    assert not Notification.objects.exists()
    notify_images_done([*mine, *hers])

    assert lines_of(technologist) == [(DONE, case)]
    assert lines_of(reader) == []


def test_notice_costs_a_micro_batch_one_query_while_pictures_wait(
    make_image: MakeImage, django_assert_num_queries: Any
) -> None:
    images = [make_image("classified") for _ in range(3)]
    make_image("queued")

    with django_assert_num_queries(1):
        notify_images_done(images)


def test_fault_of_the_notice_never_reaches_the_pipeline(make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(notifications, "notify", broken)

    notify_images_done([make_image("classified") for _ in range(10)])

    assert not Notification.objects.exists()


# --- The page and the bell -------------------------------------------------------------------------------------


@pytest.fixture
def line(technologist: User, reader: User, case: Case) -> Notification:
    services.assign_case(actor=technologist, case=case, reader=reader)
    return Notification.objects.get(user=reader)


def test_page_says_what_happened_and_what_is_unread_in_words(sign_in: SignIn, reader: User, line: Notification) -> None:
    page = sign_in(reader).get(reverse("notifications")).content.decode()

    assert "A case was assigned to you" in page
    assert line.case.accession_number in page
    assert "Unread" in page
    assert "Mark all as read" in page


def test_opening_one_marks_it_and_leads_to_the_case(sign_in: SignIn, reader: User, line: Notification) -> None:
    response = sign_in(reader).post(reverse("notification-open", args=[line.pk]))

    assert response["Location"] == reverse("case", args=[line.case_id])
    line.refresh_from_db()
    assert line.read_at is not None
    assert "Unread" not in sign_in(reader).get(reverse("notifications")).content.decode()


def test_link_that_is_followed_without_a_click_marks_nothing(sign_in: SignIn, reader: User, line: Notification) -> None:
    response = sign_in(reader).get(reverse("notification-open", args=[line.pk]))

    assert response["Location"] == reverse("case", args=[line.case_id])
    line.refresh_from_db()
    assert line.read_at is None


def test_notice_of_a_report_leads_to_that_version(sign_in: SignIn, reader: User, case: Case) -> None:
    report = Report.objects.create(
        case=case,
        version=1,
        kind="released",
        payload_json="{}",
        sha256="0" * 64,
        signed_by=reader,
        signed_at=timezone.now(),
    )
    notify(user=reader, kind=NotificationKind.REPORT_CORRECTED, case=case, report=report)
    line = Notification.objects.get()
    client = sign_in(reader)

    assert "report version 1" in client.get(reverse("notifications")).content.decode()
    location = client.post(reverse("notification-open", args=[line.pk]))["Location"]
    assert location == reverse("report", args=[case.pk, 1])


def test_all_are_marked_at_once_and_only_ones_own(
    sign_in: SignIn, technologist: User, reader: User, case: Case, line: Notification
) -> None:
    notify(user=reader, kind=DONE, case=case)
    notify(user=technologist, kind=DONE, case=case)

    response = sign_in(reader).post(reverse("notifications-read"))

    assert response["Location"] == reverse("notifications")
    assert not Notification.objects.filter(user=reader, read_at=None).exists()
    assert Notification.objects.filter(user=technologist, read_at=None).count() == 1


def test_reading_keeps_the_time_of_the_first_reading(sign_in: SignIn, reader: User, line: Notification) -> None:
    first = timezone.now() - timedelta(hours=1)
    Notification.objects.update(read_at=first)

    sign_in(reader).post(reverse("notification-open", args=[line.pk]))

    line.refresh_from_db()
    assert line.read_at == first


@pytest.mark.parametrize("who", ["technologist", "auditor", "stranger", "operator"])
def test_line_of_somebody_else_is_a_404(
    who: str, sign_in: SignIn, line: Notification, request: pytest.FixtureRequest
) -> None:
    response = sign_in(request.getfixturevalue(who)).post(reverse("notification-open", args=[line.pk]))

    assert response.status_code == 404
    line.refresh_from_db()
    assert line.read_at is None


def test_somebody_who_moved_to_another_laboratory_sees_nothing_of_the_old_one(
    sign_in: SignIn, reader: User, line: Notification, other_laboratory: Any
) -> None:
    User.objects.filter(pk=reader.pk).update(laboratory=other_laboratory)
    client = sign_in(reader)

    page = client.get(reverse("notifications"))

    assert line.case.accession_number not in page.content.decode()
    assert page.context["unread_notifications"] == 0
    assert client.post(reverse("notification-open", args=[line.pk])).status_code == 404


def test_empty_page_says_what_would_be_here(sign_in: SignIn, reader: User) -> None:
    page = sign_in(reader).get(reverse("notifications")).content.decode()

    assert "What happened while you were away will stand here" in page
    assert "Mark all as read" not in page


def test_bell_shows_the_number_of_unread_lines(sign_in: SignIn, reader: User, line: Notification) -> None:
    client = sign_in(reader)

    assert '<span class="bell-count num">1</span>' in client.get(reverse("about")).content.decode()
    services.mark_read(actor=reader, notification=line)
    page = client.get(reverse("about")).content.decode()
    assert "bell" in page
    assert "bell-count" not in page


def test_signed_out_and_operators_have_no_bell(sign_in: SignIn, operator: User) -> None:
    assert 'class="bell"' not in Client().get(reverse("about")).content.decode()
    assert 'class="bell"' not in sign_in(operator).get(reverse("about")).content.decode()


def asked_for_notifications(queries: Any) -> int:
    return sum("classifier_notification" in query["sql"] for query in queries.captured_queries)


def test_bell_costs_a_page_one_query_and_a_fragment_or_the_api_none(
    sign_in: SignIn, api: Callable[..., APIClient], reader: User, make_image: MakeImage,
    django_assert_max_num_queries: Any,
) -> None:  # fmt: skip
    image = make_image("classified")
    client, rest = sign_in(reader), api(reader)
    cost = {}

    asks: dict[str, Callable[[], Any]] = {
        "page": lambda: client.get(reverse("home")),
        "fragment": lambda: client.get(f"{reverse('image-cards')}?id={image.pk}", headers=FRAGMENT),
        "queue line": lambda: client.get(reverse("queue-line"), headers=FRAGMENT),
        "api": lambda: rest.get(reverse("api-cases")),
    }
    for name, ask in asks.items():
        with django_assert_max_num_queries(30) as queries:
            assert ask().status_code == 200
        cost[name] = asked_for_notifications(queries)

    assert cost == {"page": 1, "fragment": 0, "queue line": 0, "api": 0}


@pytest.mark.parametrize("count", [1, 25])
def test_queries_of_the_page_do_not_grow_with_the_lines(
    count: int, sign_in: SignIn, technologist: User, reader: User, django_assert_max_num_queries: Any
) -> None:
    for place in range(count):
        case = services.open_case(actor=technologist, accession_number=f"N-{place}")
        services.assign_case(actor=technologist, case=case, reader=reader)
    client = sign_in(reader)

    # Session, user, the lines, the laboratory's name, the bell.
    with django_assert_max_num_queries(5):
        assert len(client.get(reverse("notifications")).context["page"]["rows"]) == count


def test_older_lines_are_on_further_pages(
    sign_in: SignIn, technologist: User, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from classifier.views import notifications as page_of

    monkeypatch.setattr(page_of, "NOTIFICATIONS_ON_PAGE", 3)
    for place in range(7):
        case = services.open_case(actor=technologist, accession_number=f"N-{place}")
        services.assign_case(actor=technologist, case=case, reader=reader)
    client, query, seen = sign_in(reader), "", []

    while query is not None:
        page = client.get(reverse("notifications") + query).context["page"]
        seen += [line.case.accession_number for line in page["rows"]]
        query = page["older"]

    assert seen == [f"N-{place}" for place in reversed(range(7))]


def test_reading_is_no_act_on_a_case_and_leaves_the_trail_alone(reader: User, line: Notification) -> None:
    before = AuditEvent.objects.count()

    services.mark_read(actor=reader, notification=line)

    assert AuditEvent.objects.count() == before


def test_pages_of_notifications_need_a_user(db: None, line: Notification) -> None:
    for url in (reverse("notifications"), reverse("notification-open", args=[line.pk])):
        assert Client().get(url)["Location"].startswith(reverse("account_login"))


def test_link_to_mark_all_leads_to_the_page_of_its_button(sign_in: SignIn, reader: User, line: Notification) -> None:
    assert sign_in(reader).get(reverse("notifications-read"))["Location"] == reverse("notifications")
    line.refresh_from_db()
    assert line.read_at is None
