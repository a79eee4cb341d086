"""Days of the audit desk that are over stay counted, and are still those of the rows whatever happens afterwards."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Laboratory, User
from classifier import desk_days, services
from classifier.desk_days import DAY, Days, Window, counted, days_of, stretches
from classifier.kept_totals import SETTLED, STEP
from classifier.models import Case, CellImage, ModelVersion
from tests.factories import prediction_of

MakeRead = Callable[..., CellImage]
LONG_AGO = 9 * DAY


@pytest.fixture
def month() -> Window:
    return Window(timezone.localdate() - 29 * DAY, timezone.localdate())


@pytest.fixture
def make_read(
    monkeypatch: pytest.MonkeyPatch, make_image: Callable[..., CellImage], model_version: ModelVersion, reader: User
) -> MakeRead:
    """An image that was predicted and confirmed some days ago."""

    def make(age: timedelta = LONG_AGO) -> CellImage:
        at = timezone.now() - age
        with monkeypatch.context() as patched:
            patched.setattr(timezone, "now", lambda: at)
            image = make_image("classified")
            prediction_of(image, model_version)
            # Its prediction and its review are of two days.
            patched.setattr(timezone, "now", lambda: at + 2 * DAY)
            services.review_image(actor=reader, image=image, verdict="CONFIRMED")
        return CellImage.objects.get(pk=image.pk)

    return make


def kept_of(laboratory: Laboratory) -> Any:
    return cache.get(f"desk:UTC:{laboratory.pk}")


def test_day_that_is_over_is_not_read_again(make_read: MakeRead, laboratory: Laboratory, month: Window) -> None:
    make_read()
    first = days_of(laboratory, month)

    with CaptureQueriesContext(connection) as queries:
        again = days_of(laboratory, month)

    assert again == first == counted(laboratory, month)
    grouped = [each["sql"] for each in queries if "GROUP BY" in each["sql"]]
    begin = (timezone.localdate() - 2 * DAY).isoformat()
    assert len(grouped) == 2
    assert not any(begin in each for each in grouped)


@pytest.mark.parametrize(
    "change",
    [
        lambda image, reader: services.review_image(
            actor=reader, image=image, verdict="CORRECTED", final_label="monocyte"
        ),
        lambda image, reader: services.review_image(actor=reader, image=image, verdict="UNUSABLE"),
        lambda image, reader: services.review_image(actor=reader, image=image, verdict="WITHDRAWN"),
        lambda image, reader: services.void_image(actor=reader, image=image, reason="another patient"),
        lambda image, reader: services.void_case(actor=reader, case=image.case, reason="another patient"),
    ],
    ids=["corrected", "unusable", "withdrawn", "image void", "case void"],
)
def test_day_is_counted_anew_when_something_of_it_changes(
    make_read: MakeRead, laboratory: Laboratory, month: Window, reader: User, change: Callable[[CellImage, User], Any]
) -> None:
    image = make_read()
    make_read(LONG_AGO + DAY)
    before = days_of(laboratory, month)

    change(image, reader)

    after = days_of(laboratory, month)
    assert after == counted(laboratory, month) != before
    # Nor does it come back when what is kept is kept anew.
    begun, since, kept = kept_of(laboratory)
    cache.set(f"desk:UTC:{laboratory.pk}", (begun, since - 2 * STEP, kept))
    assert days_of(laboratory, month) == after
    assert kept_of(laboratory)[1] >= since
    assert days_of(laboratory, month) == after


def test_review_that_counts_again_is_counted_again(
    make_read: MakeRead, laboratory: Laboratory, month: Window, reader: User
) -> None:
    image = make_read()
    before = days_of(laboratory, month)
    services.review_image(actor=reader, image=image, verdict="CORRECTED", final_label="monocyte")
    days_of(laboratory, month)

    services.review_image(actor=reader, image=image, verdict="WITHDRAWN")

    assert days_of(laboratory, month) == counted(laboratory, month) == before


def test_void_of_another_laboratory_changes_no_day(
    make_read: MakeRead, laboratory: Laboratory, month: Window, stranger: User
) -> None:
    make_read()
    days_of(laboratory, month)
    case = services.open_case(actor=stranger, accession_number="S-1")
    services.void_case(actor=stranger, case=case, reason="another patient")

    with CaptureQueriesContext(connection) as queries:
        days_of(laboratory, month)

    assert sum("GROUP BY" in each["sql"] for each in queries) == 2


def test_many_voids_of_another_laboratory_leave_the_days_kept(
    make_read: MakeRead, laboratory: Laboratory, month: Window, stranger: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_read()
    days_of(laboratory, month)
    monkeypatch.setattr(desk_days, "MOST_CHANGES", 1)
    services.void_case(actor=stranger, case=services.open_case(actor=stranger, accession_number="S-1"), reason="twice")

    assert desk_days.changed_days(laboratory, timezone.now() - DAY) == set()


def test_where_much_has_changed_everything_is_counted_anew(
    make_read: MakeRead, laboratory: Laboratory, month: Window, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_read()
    days_of(laboratory, month)
    monkeypatch.setattr(desk_days, "MOST_CHANGES", 1)
    services.void_image(actor=reader, image=image, reason="another patient")

    assert days_of(laboratory, month) == counted(laboratory, month)


def test_day_is_kept_an_hour_after_its_end_and_only_the_last_hundred_are(
    laboratory: Laboratory, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now().replace(hour=0, minute=30)
    monkeypatch.setattr(timezone, "now", lambda: now)
    today = now.date()

    days_of(laboratory, Window(today - 200 * DAY, today + DAY))

    kept = kept_of(laboratory)[2]
    assert (min(kept), max(kept)) == (today - desk_days.KEPT_DAYS * DAY, today - 2 * DAY)

    now += 4 * DAY
    days_of(laboratory, Window(now.date() - DAY, now.date()))
    days_of(laboratory, Window(now.date() - 3 * DAY, now.date()))

    kept = kept_of(laboratory)[2]
    assert (min(kept), max(kept)) == (now.date() - desk_days.KEPT_DAYS * DAY, now.date() - 2 * DAY)


def test_fact_whose_transaction_ended_late_changes_its_day(
    make_read: MakeRead, laboratory: Laboratory, month: Window, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_read()
    before = days_of(laboratory, month)
    at = timezone.now() - SETTLED + timedelta(minutes=1)
    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: at)
        services.review_image(actor=reader, image=image, verdict="WITHDRAWN")

    assert days_of(laboratory, month) == counted(laboratory, month) != before


def test_what_is_kept_is_counted_anew_after_a_week_however_often_it_is_asked_for(
    make_read: MakeRead, laboratory: Laboratory, month: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_read()
    days_of(laboratory, month)
    left: list[int] = []
    keep = cache.set

    def kept_for(name: str, value: Any, seconds: float) -> None:
        left.append(round(seconds / DAY.total_seconds()))
        keep(name, value, seconds)

    monkeypatch.setattr(cache, "set", kept_for)
    for later in (2 * DAY, 4 * DAY, 8 * DAY):
        at = timezone.now() + later
        with monkeypatch.context() as patched:
            patched.setattr(timezone, "now", lambda at=at: at)
            days_of(laboratory, Window(month.first, month.last + later))

    assert left == [5, 3, -1]
    assert kept_of(laboratory) is None


def test_days_kept_by_a_clock_that_was_wrong_are_counted_anew(
    make_read: MakeRead, laboratory: Laboratory, month: Window
) -> None:
    make_read()
    wrong: Days = {day: (Counter(), Counter()) for day in month}
    ahead = timezone.now() + LONG_AGO
    cache.set(f"desk:UTC:{laboratory.pk}", (ahead, ahead, wrong))

    assert days_of(laboratory, month) == counted(laboratory, month)
    assert kept_of(laboratory)[0] <= timezone.now()


def test_days_of_another_time_zone_are_others(make_read: MakeRead, laboratory: Laboratory, month: Window) -> None:
    make_read()
    days_of(laboratory, month)

    with timezone.override("Asia/Tokyo"):
        assert days_of(laboratory, month) == counted(laboratory, month)


def test_days_are_read_in_stretches() -> None:
    today = timezone.localdate()

    assert stretches([today - 4 * DAY, today - 3 * DAY, today]) == [
        Window(today - 4 * DAY, today - 3 * DAY),
        Window(today, today),
    ]
