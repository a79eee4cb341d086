"""Where pictures may be due is known without a look at every case: what is emptied is passed over, and nothing else."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import User
from classifier import retention_steps, services
from classifier.models import Case, CellImage, ImageStatus, ModelVersion, RemovedPicture, RetentionRule
from classifier.retention import consequence_of
from classifier.retention_steps import remove_due_pictures
from tests.conftest import PASSWORD

MakeImage = Callable[..., CellImage]
Sweep = Callable[[float], int]
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def rule(lab_admin: User) -> RetentionRule:
    return services.set_retention_rule(actor=lab_admin, keep_days=30, reason="Ours", seen=0)


@pytest.fixture
def sweep(django_capture_on_commit_callbacks: Any) -> Sweep:
    """Lets the machine remove what is due so many days from now; returns how many pictures went."""

    def sweep(days: float) -> int:
        with django_capture_on_commit_callbacks(execute=True):
            return remove_due_pictures(timezone.now() + timedelta(days=days))

    return sweep


@pytest.fixture
def signed(make_image: MakeImage, case: Case, reader: User) -> CellImage:
    image = make_image("reviewed")
    services.release_report(actor=reader, case=case, password=PASSWORD, reason="one cell")
    return image


def emptied_at(case: Case) -> datetime | None:
    return Case.objects.values_list("emptied_at", flat=True).get(pk=case.pk)


def test_case_is_emptied_with_its_last_picture_and_not_before(
    make_image: MakeImage, case: Case, reader: User, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_steps, "AT_ONCE", 2)
    for _ in range(3):
        make_image("classified")
    services.void_case(actor=reader, case=case, reason="Wrong patient")
    monkeypatch.setattr(retention_steps, "SLICE_SECONDS", -0.001)

    assert sweep(31) == 2
    assert emptied_at(case) is None
    assert sweep(31) == 1
    assert emptied_at(case) is not None
    assert sweep(31) == 0


def test_picture_that_settles_later_goes_at_the_next_sweep(
    make_image: MakeImage, case: Case, reader: User, sweep: Sweep
) -> None:
    make_image("classified")
    late = make_image("queued")
    services.void_case(actor=reader, case=case, reason="Wrong patient")
    assert sweep(31) == 1
    assert emptied_at(case) is None

    CellImage.objects.filter(pk=late.pk).update(status=ImageStatus.CLASSIFIED, classified_at=timezone.now())

    assert sweep(31) == 1
    assert emptied_at(case) is not None


def test_picture_that_an_amendment_adds_to_an_emptied_case_goes_when_it_is_due(
    signed: CellImage, make_image: MakeImage, case: Case, reader: User, sweep: Sweep, model_version: ModelVersion
) -> None:
    assert sweep(31) == 1
    assert emptied_at(case) is not None
    case.refresh_from_db()
    services.amend_report(actor=reader, case=case, kind="amended", reason="One more")
    assert emptied_at(case) is None
    added = make_image("reviewed")
    assert sweep(31) == 0

    services.release_report(actor=reader, case=case, password=PASSWORD, reason="two cells")

    assert sweep(29) == 0
    assert sweep(31) == 1
    assert RemovedPicture.objects.filter(image=added).exists()
    assert emptied_at(case) is not None


def test_what_becomes_due_by_a_lifted_hold_or_a_shorter_rule_goes_at_the_next_sweep(
    signed: CellImage, case: Case, lab_admin: User, sweep: Sweep
) -> None:
    services.place_hold(actor=lab_admin, case=case, reason="A lawsuit")
    assert sweep(90) == 0
    services.lift_hold(actor=lab_admin, case=case, reason="It is over")
    services.set_retention_rule(actor=lab_admin, keep_days=60, reason="Longer", seen=0)
    assert sweep(59) == 0
    services.set_retention_rule(actor=lab_admin, keep_days=40, reason="Shorter", seen=0)
    later = timezone.now() + timedelta(days=41)

    assert consequence_of(case.laboratory_id, 40, later).pictures == 1
    assert sweep(41) == 1
    assert consequence_of(case.laboratory_id, 40, later).pictures == 0


@pytest.mark.parametrize(
    ("table", "column", "index"),
    [
        ("accounts_auditevent", "laboratory_id", "audit_laboratory_newest"),
        ("classifier_batch", "laboratory_id", "batch_laboratory_newest"),
        ("classifier_batchmember", "batch_id", "batch_member_once"),
        ("classifier_case", "laboratory_id", "case_laboratory_newest"),
        ("classifier_cellimage", "case_id", "image_case_newest"),
        ("classifier_cellimage", "uploaded_by_id", "image_uploader_newest"),
        ("classifier_notification", "user_id", "notification_newest"),
        ("classifier_prediction", "image_id", "one_prediction_an_image_and_model"),
        ("classifier_removedpicture", "rule_id", "removed_picture_newest"),
        ("classifier_report", "case_id", "report_version_unique"),
        ("classifier_review", "image_id", "review_image_newest"),
        ("classifier_review", "reader_id", "review_reader_newest"),
    ],
)
def test_key_that_an_index_begins_with_has_none_of_its_own(table: str, column: str, index: str) -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, table)

    # SQLite names the indexes of unique constraints itself.
    assert any(about["columns"][:1] == [column] and len(about["columns"]) > 1 for about in found.values())
    assert not any(name.startswith(f"{table}_{column}_") and about["index"] for name, about in found.items())
    assert found[index]["columns"][0] == column


def test_hash_of_the_pixels_has_one_index() -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "classifier_cellimage")

    own = [name for name, about in found.items() if about["columns"] == ["pixels_sha256"] and about["index"]]
    assert len(own) == 1
