"""The audit desk's figures by day: a day that is over stays counted until something of it changes.

What changes a day that is over is a fact with a time of its own: a later review of an image that had one, or a void. So
the cache keeps a laboratory's days as they stood at some moment; those that a fact since then is about are counted
anew, and the others are as they were. As in `classifier.kept_totals`, no transaction is open for an hour, and clocks
are not that far apart.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.cache import cache
from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from accounts.models import Laboratory
from classifier.desk_filters import READ, begin_of, counts_now, void_or_not
from classifier.kept_totals import KEPT_SECONDS, SETTLED, STEP
from classifier.models import CellImage, Prediction, Review, Void

# The last days are kept; earlier ones are counted whenever somebody asks for them.
KEPT_DAYS = 100
# Where more facts than these came since, everything is counted anew.
MOST_CHANGES = 500
DAY = timedelta(days=1)

# By reader, model version, what the model said and what the reader said: reviews that agreement is counted over.
Read = Counter[tuple[UUID, UUID, str, str]]
# By model version, reason code and whether it abstained: predictions.
Made = Counter[tuple[UUID, str, bool]]
# Of no class of ours, for they are kept beyond an upgrade.
Days = dict[date, tuple[Read, Made]]


@dataclass(frozen=True)
class Window:
    """Days, the first and the last one included."""

    first: date
    last: date

    @property
    def in_address(self) -> dict[str, str]:
        return {"from": self.first.isoformat(), "to": self.last.isoformat()}

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def __iter__(self) -> Iterator[date]:
        return (self.first + n * DAY for n in range(self.days))

    def nearest(self, day: date) -> date:
        """The day itself, unless the database knows other limits of a day than we do."""
        return min(max(day, self.first), self.last)

    def holds(self, field: str) -> Q:
        first, last = begin_of(self.first.isoformat()), begin_of(self.last.isoformat(), 1)
        return Q(**{f"{field}__gte": first, f"{field}__lt": last})


def name_of(laboratory: Laboratory) -> str:
    """Under which the cache keeps its days."""
    return f"desk:{timezone.get_current_timezone_name()}:{laboratory.pk}"


def days_of(laboratory: Laboratory, window: Window) -> Days:
    """Every day of the window: read and made; void images are in neither."""
    now = timezone.now()
    until = now - SETTLED
    begun, since, kept = cache.get(name_of(laboratory), (now, until, {}))
    changed = changed_days(laboratory, since) if kept and since <= until + STEP else None
    if changed is None:
        begun, kept, changed = now, {}, set()
    known: Days = {day: kept[day] for day in kept if day not in changed}
    fresh: Days = {}
    for stretch in stretches(day for day in window if day not in known):
        fresh |= counted(laboratory, stretch)
    if since < until - STEP or any(is_over(day, until) for day in fresh):
        keepable: Days = {day: figures for day, figures in {**known, **fresh}.items() if is_over(day, until)}
        left = KEPT_SECONDS - (now - begun).total_seconds()
        cache.set(name_of(laboratory), (begun, until, keepable), left)
    return {day: known.get(day) or fresh[day] for day in window}


def is_over(day: date, until: datetime) -> bool:
    """Whether nothing is written any more at a time of this day, and it is late enough to be kept."""
    return begin_of(day.isoformat(), 1) <= until < begin_of(day.isoformat(), KEPT_DAYS)


def stretches(days: Iterable[date]) -> list[Window]:
    """The days, which come in order, as windows without a gap."""
    found: list[Window] = []
    for day in days:
        if found and day == found[-1].last + DAY:
            found[-1] = Window(found[-1].first, day)
        else:
            found.append(Window(day, day))
    return found


def counted(laboratory: Laboratory, window: Window) -> Days:
    """The days of the window, by their rows; two queries."""
    days: Days = {day: (Counter(), Counter()) for day in window}
    # One object for what is equal: so the cache writes it once.
    one: dict[Any, Any] = {}
    read = read_reviews(laboratory, window).values_list(
        TruncDate("created_at"), "reader", F("prediction__model_version"), F("prediction__label"), "final_label"
    )
    for day, *key, n in read.annotate(n=Count("pk")):
        days[window.nearest(day)][0][tuple(one.setdefault(part, part) for part in key)] += n
    made = made_predictions(laboratory, window).values_list(
        TruncDate("created_at"), "model_version", "reason_code", "abstained"
    )
    for day, *key, n in made.annotate(n=Count("pk")):
        days[window.nearest(day)][1][tuple(one.setdefault(part, part) for part in key)] += n
    return days


def read_reviews(laboratory: Laboratory, window: Window) -> QuerySet[Any]:
    """The reviews that agreement is counted over."""
    rows = Review.objects.filter(
        window.holds("created_at"),
        counts_now(),
        laboratory=laboratory,
        verdict__in=READ,
    )
    return void_or_not("image").apply(rows, "no").order_by()


def made_predictions(laboratory: Laboratory, window: Window) -> QuerySet[Any]:
    rows = Prediction.objects.filter(window.holds("created_at"), laboratory=laboratory)
    return void_or_not("image").apply(rows, "no").order_by()


def changed_days(laboratory: Laboratory, since: datetime) -> set[date] | None:
    """The days that facts of this moment or later are about; None where these are many."""
    # The first review of an image changes no other day than its own.
    again = Review.objects.filter(laboratory=laboratory, created_at__gte=since, previous__isnull=False).order_by()
    voids = Void.objects.filter(laboratory=laboratory, at__gte=since).order_by()
    images = list(again.values_list("image", flat=True)[:MOST_CHANGES])
    void = list(voids.values_list("image", "case")[:MOST_CHANGES])
    of_cases: list[UUID] = []
    if cases := [case for _, case in void if case]:
        theirs = CellImage.objects.filter(case__in=cases, laboratory=laboratory).order_by()
        of_cases = list(theirs.values_list("pk", flat=True)[:MOST_CHANGES])
    if MOST_CHANGES in (len(images), len(void), len(of_cases)):
        return None
    images += [*of_cases, *(image for image, _ in void if image)]
    if not images:
        return set()
    days: set[date] = set()
    for model in (Review, Prediction):
        rows = model._default_manager.filter(image__in=images, laboratory=laboratory).order_by()
        days.update(rows.values_list(TruncDate("created_at"), flat=True).distinct())
    return days
