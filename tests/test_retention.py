"""How long pictures are kept: the rule, the hold, the removal by the machine, and what is shown afterwards."""

import io
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient
from structlog.testing import capture_logs

from accounts.models import AuditEvent, User
from classifier import retention_steps, services, stored_files, thumbnails
from classifier.errors import Gone, HematoVisionError
from classifier.models import Case, CellImage, RemovedPicture, RetentionRule
from classifier.retention import due_pictures, hold_of, rule_of
from classifier.retention_steps import remove_due_pictures
from tests.conftest import PASSWORD

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
Commit = Callable[..., Any]
pytestmark = pytest.mark.django_db


@pytest.fixture
def signed(make_image: MakeImage, case: Case, reader: User) -> CellImage:
    """The only image of a case whose report is signed; it has a thumbnail."""
    image = make_image("reviewed")
    thumbnails.store(image, b"thumbnail")
    CellImage.objects.filter(pk=image.pk).update(has_thumbnail=True)
    services.release_report(actor=reader, case=case, password=PASSWORD, reason="one cell")
    image.refresh_from_db()
    return image


@pytest.fixture
def rule(lab_admin: User) -> RetentionRule:
    return services.set_retention_rule(actor=lab_admin, keep_days=30, reason="Ours", seen=0)


@pytest.fixture
def swept(django_capture_on_commit_callbacks: Commit) -> Callable[..., int]:
    """Lets the machine remove what is due so many days from now, and delete the files after the commit."""

    def sweep(days: float = 31) -> int:
        with django_capture_on_commit_callbacks(execute=True):
            return remove_due_pictures(timezone.now() + timedelta(days=days))

    return sweep


def test_picture_of_a_signed_case_goes_when_its_days_are_over_and_not_before(
    signed: CellImage, rule: RetentionRule, swept: Callable[..., int]
) -> None:
    assert swept(29.9) == 0
    assert Path(signed.file.path).exists()

    assert swept(30.1) == 1
    assert not Path(signed.file.path).exists()
    assert not Path(signed.file.storage.path(thumbnails.path_of(signed))).exists()
    assert swept(30.2) == 0

    event = AuditEvent.objects.get(action="pictures_removed")
    assert (event.actor, event.laboratory, event.target_id) == (None, rule.laboratory, str(signed.case_id))
    assert event.facts == {"rule": 1, "images": [str(signed.pk)]}
    # All that was said stays.
    signed.refresh_from_db()
    assert signed.current_review is not None
    assert signed.removed_picture.rule == rule


def test_due_cases_are_looked_for_once_and_not_again_for_each(
    signed: CellImage, make_image: MakeImage, technologist: User, reader: User, rule: RetentionRule, swept: Any
) -> None:
    for _ in range(2):
        case = services.open_case(actor=technologist)
        make_image("classified", case=case)
        services.void_case(actor=reader, case=case, reason="Wrong patient")
    with CaptureQueriesContext(connection) as queries:
        assert swept(31) == 3
    assert len([query for query in queries if "GROUP BY" in query["sql"]]) == 1


def test_large_case_and_many_cases_go_in_lists(
    make_image: MakeImage, technologist: User, reader: User, rule: RetentionRule, swept: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(retention_steps, "AT_ONCE", 2)
    monkeypatch.setattr(retention_steps, "CASES", 1)
    for pictures in (5, 1):
        case = services.open_case(actor=technologist)
        for _ in range(pictures):
            make_image("classified", case=case)
        services.void_case(actor=reader, case=case, reason="Wrong patient")
    assert swept(31) == 6


def test_what_is_left_when_the_time_is_over_is_said_and_goes_next(
    signed: CellImage,
    make_image: MakeImage,
    technologist: User,
    reader: User,
    rule: RetentionRule,
    swept: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = services.open_case(actor=technologist)
    make_image("classified", case=case)
    services.void_case(actor=reader, case=case, reason="Wrong patient")
    monkeypatch.setattr(retention_steps, "SLICE_SECONDS", -0.001)
    with capture_logs() as logs:
        assert swept(31) == 1
    assert "pictures_still_due" in {line["event"] for line in logs}
    with capture_logs() as logs:
        assert swept(31) == 1
    assert "pictures_still_due" not in {line["event"] for line in logs}


@pytest.mark.django_db(transaction=True)
def test_rule_that_is_being_set_stops_the_removal(signed: CellImage, rule: RetentionRule, lab_admin: User) -> None:
    """The removal waits for it on another connection, and then removes nothing."""
    later, removed = timezone.now() + timedelta(days=31), []

    def remove() -> None:
        removed.append(retention_steps.remove_pictures_of(signed.case_id, rule, later))
        connection.close()

    other = threading.Thread(target=remove)
    with transaction.atomic():
        services.set_retention_rule(actor=lab_admin, keep_days=None, reason="Stop", seen=0)
        other.start()
        other.join(0.3)
        assert other.is_alive()
    other.join()
    assert removed == [0]
    assert Path(signed.file.path).exists()


def test_rule_removes_nothing_on_its_first_day(
    signed: CellImage, lab_admin: User, swept: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule set by mistake over old cases can be taken back."""
    later = timezone.now() + timedelta(days=40)
    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: later)
        first = services.set_retention_rule(actor=lab_admin, keep_days=30, reason="Ours", seen=1)
    assert first.at == later
    assert swept(40.9) == 0

    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: later)
        services.set_retention_rule(actor=lab_admin, keep_days=None, reason="A mistake", seen=0)
    assert swept(45) == 0
    assert Path(signed.file.path).exists()


def test_void_case_loses_its_pictures_too(
    make_image: MakeImage, case: Case, reader: User, rule: RetentionRule, swept: Callable[..., int]
) -> None:
    image = make_image("classified")
    waiting = make_image("queued")
    services.void_case(actor=reader, case=case, reason="Wrong patient")

    assert swept(31) == 1
    assert not Path(image.file.path).exists()
    # What a worker may still take keeps its picture.
    assert Path(waiting.file.path).exists()


def test_open_case_and_one_that_is_being_amended_keep_theirs(
    signed: CellImage, make_image: MakeImage, technologist: User, reader: User, rule: RetentionRule, swept: Any
) -> None:
    other = services.open_case(actor=technologist)
    make_image("reviewed", case=other)
    services.amend_report(actor=reader, case=signed.case, kind="amended", reason="one more cell")
    assert swept(400) == 0


def test_the_newest_report_counts(
    signed: CellImage, reader: User, rule: RetentionRule, swept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.amend_report(actor=reader, case=signed.case, kind="amended", reason="one more look")
    later = timezone.now() + timedelta(days=20)
    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: later)
        services.release_report(actor=reader, case=signed.case, password=PASSWORD, reason="one cell")

    assert swept(40) == 0
    assert swept(51) == 1


def test_case_on_hold_keeps_its_pictures_until_the_hold_is_lifted(
    signed: CellImage, lab_admin: User, rule: RetentionRule, swept: Any
) -> None:
    services.place_hold(actor=lab_admin, case=signed.case, reason="Court order")
    assert swept(400) == 0
    assert hold_of(signed.case) is not None

    services.lift_hold(actor=lab_admin, case=signed.case, reason="Settled")
    assert hold_of(signed.case) is None
    assert swept(400) == 1
    actions = AuditEvent.objects.filter(target_id=str(signed.case_id)).values_list("action", flat=True)
    assert {"hold_placed", "hold_lifted"} <= set(actions)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda user, case: services.lift_hold(actor=user, case=case, reason="none there"), "not_on_hold"),
        (lambda user, case: services.place_hold(actor=user, case=case, reason=" "), "reason_missing"),
        (
            lambda user, case: services.set_retention_rule(actor=user, keep_days=29, reason="short", seen=0),
            "keep_days_out_of_range",
        ),
        (
            lambda user, case: services.set_retention_rule(actor=user, keep_days=30, reason="", seen=0),
            "reason_missing",
        ),
        (
            lambda user, case: services.set_retention_rule(actor=user, keep_days=30, reason="unseen", seen=7),
            "pictures_changed",
        ),
    ],
)
def test_refusal_has_a_code(act: Callable[..., Any], code: str, lab_admin: User, case: Case) -> None:
    with pytest.raises(HematoVisionError) as refused:
        act(lab_admin, case)
    assert refused.value.code == code
    assert not RetentionRule.objects.exists()


@pytest.mark.parametrize("who", ["technologist", "reader", "auditor", "service_account", "stranger"])
def test_only_an_administrator_of_the_laboratory_sets_rules_and_holds(
    who: str, case: Case, request: pytest.FixtureRequest, sign_in: SignIn
) -> None:
    user = request.getfixturevalue(who)
    for act in (
        lambda: services.set_retention_rule(actor=user, keep_days=30, reason="mine", seen=0),
        lambda: services.place_hold(actor=user, case=case, reason="mine"),
    ):
        with pytest.raises(HematoVisionError) as refused:
            act()
        assert refused.value.code == "not_allowed"
    client = sign_in(user)
    assert client.get(reverse("retention")).status_code == (200 if who == "auditor" else 403)
    assert client.post(reverse("retention"), {"keep_days": 30, "reason": "x", "seen": 0}).status_code == 403
    assert client.get(reverse("erasure")).status_code == 403
    assert client.post(reverse("case-hold", args=[case.pk]), {"reason": "x"}).status_code == (
        404 if who == "stranger" else 403
    )


def test_rule_is_set_only_after_its_consequence_was_shown(
    signed: CellImage, lab_admin: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sign_in(lab_admin)

    def due_later(laboratory_id: Any, keep_days: int, now: datetime) -> Any:
        return due_pictures(laboratory_id, keep_days, now + timedelta(days=40))

    monkeypatch.setattr("classifier.retention.due_pictures", due_later)

    shown = client.post(reverse("retention"), {"keep_days": "30", "reason": "Ours"})
    assert "1 picture of 1 case" in shown.content.decode()
    assert rule_of(lab_admin.laboratory_id) is None  # type: ignore[arg-type]

    stale = client.post(reverse("retention"), {"keep_days": "30", "reason": "Ours", "seen": "9"})
    assert stale.status_code == 409
    done = client.post(reverse("retention"), {"keep_days": "30", "reason": "Ours", "seen": "1"}, follow=True)
    assert "30 days" in done.content.decode()
    assert rule_of(lab_admin.laboratory_id).keep_days == 30  # type: ignore[arg-type,union-attr]


def test_removed_picture_says_so_everywhere(
    signed: CellImage, rule: RetentionRule, swept: Any, sign_in: SignIn, api: Callable[..., APIClient], reader: User
) -> None:
    swept()
    signed.refresh_from_db()
    client = sign_in(reader)

    drawn = client.get(reverse("image-file", args=[signed.pk]))
    assert (drawn.status_code, drawn["Content-Type"]) == (410, "image/svg+xml")
    assert "removed on" in drawn.content.decode()
    assert "Picture removed" in client.get(reverse("image", args=[signed.pk])).content.decode()
    case_page = client.get(reverse("case", args=[signed.case_id])).content.decode()
    assert "1 picture of this case was removed" in case_page
    # The tile asks for the picture, and gets the one that says so.
    assert reverse("image-file", args=[signed.pk]) in case_page
    assert client.get(reverse("image-thumbnail", args=[signed.pk])).status_code == 404

    answer = api(reader).get(reverse("api-image-file", args=[signed.pk]))
    assert (answer.status_code, answer.json()["code"]) == (410, "picture_removed")
    assert api(reader).get(reverse("api-image", args=[signed.pk])).status_code == 200


def test_thumbnail_that_a_browser_kept_is_not_confirmed(
    signed: CellImage, rule: RetentionRule, swept: Any, sign_in: SignIn, reader: User
) -> None:
    client = sign_in(reader)
    url = reverse("image-thumbnail", args=[signed.pk])
    etag = client.get(url)["ETag"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 304
    swept()
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 404


def test_removed_picture_is_never_asked_of_the_model_again(
    signed: CellImage, rule: RetentionRule, swept: Any, reader: User, technologist: User
) -> None:
    swept()
    services.amend_report(actor=reader, case=signed.case, kind="corrected", reason="wrong")
    image = CellImage.objects.select_related("case").get(pk=signed.pk)
    with pytest.raises(Gone) as refused:
        services.requeue_image(actor=technologist, image=image)
    assert refused.value.code == "picture_removed"
    assert not thumbnails.without_thumbnail()


def test_worker_that_dies_before_the_file_is_deleted_leaves_it_to_the_check(
    signed: CellImage, rule: RetentionRule, sign_in: SignIn, reader: User
) -> None:
    """The fact is committed, the files are still there: nobody is shown them, and the check deletes them."""
    cache.clear()
    remove_due_pictures(timezone.now() + timedelta(days=31))
    path = Path(signed.file.path)
    assert path.exists()
    assert sign_in(reader).get(reverse("image-file", args=[signed.pk])).status_code == 410
    out = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("verify_storage", stdout=out)
    assert "removed under a retention rule, but still there" in out.getvalue()

    stored_files.check_some()
    assert not path.exists()
    assert not Path(signed.file.storage.path(thumbnails.path_of(signed))).exists()
    call_command("verify_storage", stdout=io.StringIO())


def test_hold_is_on_the_page_of_the_case_with_its_reason(case: Case, lab_admin: User, sign_in: SignIn) -> None:
    client = sign_in(lab_admin)
    answer = client.post(reverse("case-hold", args=[case.pk]), {"act": "place", "reason": "Court order 7"}, follow=True)
    page = answer.content.decode()
    assert "On legal hold." in page
    assert "Court order 7" in page
    assert "Court order 7" in client.get(reverse("case-hold", args=[case.pk])).content.decode()
    assert case.accession_number in client.get(reverse("retention")).content.decode()

    twice = client.post(reverse("case-hold", args=[case.pk]), {"act": "place", "reason": "again"})
    assert twice.status_code == 409
    client.post(reverse("case-hold", args=[case.pk]), {"act": "lift", "reason": "Settled"})
    assert "On legal hold." not in client.get(reverse("case", args=[case.pk])).content.decode()


def test_another_laboratory_keeps_its_own(
    signed: CellImage, rule: RetentionRule, swept: Any, stranger: User, make_image: MakeImage
) -> None:
    theirs = services.open_case(actor=stranger)
    image = make_image("reviewed", case=theirs, uploaded_by=stranger, reader=stranger)
    services.release_report(actor=stranger, case=theirs, password=PASSWORD, reason="one cell")
    assert swept() == 1
    assert Path(image.file.path).exists()
    assert RemovedPicture.objects.get().image == signed
