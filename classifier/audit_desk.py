"""What the audit desk's first page says: agreement, abstentions, readers, days, failures, and how the queue stands.

Every figure is that of a list behind it: the same filters, the same rows (`classifier.desk_filters`). Agreement is
counted over reviews that count now, confirm or correct a prediction, and whose image is not void. Who read them had
the suggestion in view.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.models import Count, Max, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import Laboratory, User
from classifier.binomial import limits
from classifier.charts import Axis, MatrixRow, Whisker, axis_for, matrix_rows
from classifier.desk_days import Days, Window, days_of
from classifier.desk_filters import UNIDENTIFIED, as_day
from classifier.exports import exports_of
from classifier.heartbeat import SEEN_WITHIN
from classifier.kept_totals import images_by_status, predictions_by_version
from classifier.models import CellImage, ImageStatus, ModelVersion, WorkerHeartbeat
from classifier.querysets import QueueState
from classifier.readiness import Obstacle, queue_obstacle
from ml.labels import CELL_TYPES

USUAL_DAYS = 30
LONGEST = timedelta(days=3660)
# Up to so many days a line is a day, beyond that a week.
DAYS_BY_DAY = 31


def window_of(given: Mapping[str, str]) -> Window:
    """`from` and `to` of an address, or the last `days`; the last 30 days where neither can be used."""
    today = timezone.localdate()
    first, last = as_day(given.get("from", "")), as_day(given.get("to", ""))
    if first and last and timedelta(0) <= date.fromisoformat(last) - date.fromisoformat(first) <= LONGEST:
        return Window(date.fromisoformat(first), date.fromisoformat(last))
    days = 90 if given.get("days") == "90" else USUAL_DAYS
    return Window(today - timedelta(days=days - 1), today)


# --- Agreement -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreed:
    """How often the reader said what the model said: `agreed` of `n`, with exact 95 % limits as fractions."""

    n: int
    agreed: int

    @property
    def share(self) -> float | None:
        return self.agreed / self.n if self.n else None

    @property
    def overridden(self) -> int:
        return self.n - self.agreed

    @cached_property
    def reach(self) -> tuple[float, float]:
        return limits(self.agreed, self.n)


@dataclass(frozen=True)
class ClassAgreement:
    """Agreement where the model said one class, and its place on the chart."""

    slug: str
    counted: Agreed
    whisker: Whisker


@dataclass(frozen=True)
class VersionAgreement:
    """One model version against its readers. `identified`: it abstained, and the reader gave a class."""

    version: ModelVersion
    counted: Agreed
    identified: int
    axis: Axis
    classes: list[ClassAgreement]
    said: list[str]
    matrix: list[MatrixRow]


@dataclass(frozen=True)
class ReaderAgreement:
    """One reader: how often the model's class was kept, and how often one was given where the model abstained."""

    reader: User
    counted: Agreed
    identified: int


Pairs = Counter[tuple[str, str]]


def agreement_of(days: Days) -> tuple[list[VersionAgreement], list[ReaderAgreement]]:
    """By model version, the newest first, and by reader, the busiest first; two queries, for the names."""
    pairs: dict[UUID, Pairs] = {}
    readers: dict[UUID, Pairs] = {}
    for read, _ in days.values():
        for (reader, version, said, final), n in read.items():
            pairs.setdefault(version, Counter())[said, final] += n
            readers.setdefault(reader, Counter())[said, final] += n
    versions = ModelVersion.objects.filter(pk__in=pairs)
    people = User.objects.in_bulk(list(readers))
    by_reader = [
        ReaderAgreement(people[pk], agreed_in(counted), identified_in(counted)) for pk, counted in readers.items()
    ]
    by_reader.sort(key=lambda line: (-line.counted.n - line.identified, str(line.reader)))
    return [version_agreement(version, pairs[version.pk]) for version in versions], by_reader


def agreed_in(pairs: Pairs) -> Agreed:
    """Over all pairs (said, final) where the model said a class."""
    given = [(said, final, n) for (said, final), n in pairs.items() if said]
    return Agreed(sum(n for *_, n in given), sum(n for said, final, n in given if said == final))


def identified_in(pairs: Pairs) -> int:
    return sum(n for (said, _), n in pairs.items() if not said)


def version_agreement(version: ModelVersion, pairs: Pairs) -> VersionAgreement:
    by_class: dict[str, Agreed] = {}
    for slug in CELL_TYPES:
        n = sum(n for (said, _), n in pairs.items() if said == slug)
        if n:
            by_class[slug] = Agreed(n, pairs[slug, slug])
    axis = axis_for(counted.reach[0] for counted in by_class.values())
    confusion: dict[str, dict[str, int]] = {}
    for (said, final), n in pairs.items():
        confusion.setdefault(final, {})[said or UNIDENTIFIED] = n
    met = {said or UNIDENTIFIED for said, _ in pairs} | set(confusion)
    labels = [slug for slug in (*CELL_TYPES, UNIDENTIFIED) if slug in met]
    return VersionAgreement(
        version=version,
        counted=agreed_in(pairs),
        identified=identified_in(pairs),
        axis=axis,
        classes=[
            ClassAgreement(slug, counted, Whisker("own", slug, counted.share or 0.0, *counted.reach, axis))
            for slug, counted in by_class.items()
        ],
        said=labels,
        matrix=matrix_rows(confusion, labels),
    )


# --- Abstentions, and days ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Abstention:
    """How many of a version's predictions gave no class, by the reason's code."""

    version: ModelVersion
    n: int
    reasons: list[tuple[str, int]]

    @property
    def abstained(self) -> int:
        return sum(n for _, n in self.reasons)

    @property
    def share(self) -> float:
        return self.abstained / self.n

    @cached_property
    def reach(self) -> tuple[float, float]:
        return limits(self.abstained, self.n)


@dataclass
class Period:
    """A day or a week: predictions, those without a class, reviews where the model gave one, and those it was not."""

    first: date
    last: date
    predictions: int = 0
    abstained: int = 0
    read: int = 0
    overridden: int = 0

    @property
    def in_address(self) -> dict[str, str]:
        return Window(self.first, self.last).in_address


def abstentions_and_periods(days: Days) -> tuple[list[Abstention], list[Period]]:
    """By model version, and by day or week, those without anything left out, the newest first; one query."""
    totals: Counter[UUID] = Counter()
    reasons: dict[UUID, Counter[str]] = {}
    periods: dict[date, Period] = {}
    window = Window(min(days), max(days))
    for day, (read, made) in days.items():
        if not made and not any(said for _, _, said, _ in read):
            continue
        period = period_of(periods, day, window)
        for (version, reason, abstained), n in made.items():
            totals[version] += n
            period.predictions += n
            if abstained:
                period.abstained += n
                reasons.setdefault(version, Counter())[reason] += n
        for (_, _, said, final), n in read.items():
            period.read += n * bool(said)
            period.overridden += n * (said not in ("", final))
    versions = ModelVersion.objects.filter(pk__in=totals)
    abstentions = [
        Abstention(version, totals[version.pk], reasons.get(version.pk, Counter()).most_common())
        for version in versions
    ]
    return abstentions, sorted(periods.values(), key=lambda period: period.first, reverse=True)


def period_of(periods: dict[date, Period], day: date, window: Window) -> Period:
    """The day, or in a long window the week (from Monday) that holds it, cut to the window."""
    first = last = day
    if window.days > DAYS_BY_DAY:
        monday = day - timedelta(days=day.weekday())
        first, last = max(monday, window.first), min(monday + timedelta(days=6), window.last)
    return periods.setdefault(first, Period(first, last))


# --- The queue -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QueueHealth:
    """The queue of all laboratories, the workers seen lately, and when one last succeeded."""

    state: QueueState
    obstacle: Obstacle | None
    workers: list[WorkerHeartbeat]
    last_success: Any

    @property
    def with_model(self) -> int:
        return sum(bool(worker.model_sha256) for worker in self.workers)


def queue_health() -> QueueHealth:
    return QueueHealth(
        state=CellImage.objects.queue_state(),
        obstacle=queue_obstacle(),
        workers=list(WorkerHeartbeat.objects.filter(seen_at__gte=Now() - SEEN_WITHIN).order_by("host", "pid")),
        last_success=CellImage.objects.aggregate(at=Max("classified_at"))["at"],
    )


def images_of(laboratory: Laboratory | None) -> QuerySet[CellImage]:
    """The laboratory's images; those of all where it is None."""
    rows = CellImage.objects.order_by()
    return rows.filter(laboratory=laboratory) if laboratory else rows


def images_per_status(laboratory: Laboratory | None) -> list[tuple[str, int]]:
    """(status, n), in the order of the way through the queue."""
    counted = (
        dict(images_of(laboratory).values_list("status").annotate(n=Count("pk"))) if laboratory else images_by_status()
    )
    return [(status.value, counted[status]) for status in ImageStatus if counted.get(status)]


def failures_by_code(laboratory: Laboratory | None) -> list[tuple[str, int]]:
    """(code, n) of images that are failed now, the most frequent first."""
    failed = images_of(laboratory).filter(status=ImageStatus.FAILED).values("failure_code").annotate(n=Count("pk"))
    return sorted(((row["failure_code"], row["n"]) for row in failed), key=lambda pair: (-pair[1], pair[0]))


def versions_with_counts() -> list[tuple[ModelVersion, int]]:
    """Every model version and how many predictions it made, over all laboratories."""
    counted = predictions_by_version()
    return [(version, counted.get(str(version.pk), 0)) for version in ModelVersion.objects.all()]


# --- The page --------------------------------------------------------------------------------------------------


def desk_of_laboratory(user: User, given: Mapping[str, str]) -> dict[str, Any]:
    """Everything that an auditor's page shows."""
    laboratory = user.laboratory
    if laboratory is None:
        return {}
    window = window_of(given)
    days = days_of(laboratory, window)
    versions, readers = agreement_of(days)
    abstentions, periods = abstentions_and_periods(days)
    return {
        "window": window,
        "today": timezone.localdate(),
        "versions": versions,
        "readers": readers,
        "abstentions": abstentions,
        "periods": periods,
        "by_week": window.days > DAYS_BY_DAY,
        "queue": queue_health(),
        "per_status": images_per_status(laboratory),
        "failures": failures_by_code(laboratory),
        "exports_ready": exports_of(user).filter(finished_at__isnull=False).exclude(file="").count(),
        "exports_waiting": exports_of(user).filter(finished_at=None).count(),
    }


def desk_of_platform() -> dict[str, Any]:
    """What a platform operator's page shows: counts over all laboratories, and no patient data."""
    return {
        "queue": queue_health(),
        "per_status": images_per_status(None),
        "failures": failures_by_code(None),
        "model_versions": versions_with_counts(),
    }
