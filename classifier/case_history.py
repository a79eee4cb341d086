"""What happened to a case, and who did it: the timeline on its page."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min
from django.db.models.functions import TruncDate

from accounts.models import User
from classifier.gallery import Tile
from classifier.models import Case, Report, Review, Verdict

LINES = 60


@dataclass(frozen=True)
class HistoryLine:
    """One line: who did what, when (`until` where it took a while), why, and the report that came of it."""

    at: datetime
    who: str
    what: str
    until: datetime | None = None
    reason: str = ""
    report_version: int | None = None


def history_of(case: Case, reports: Iterable[Report], voided: Iterable[Tile]) -> list[HistoryLine]:
    """The newest lines of a case's history; one query. `case` comes with `opened_by` and `void__by`, the reports with
    `signed_by` and `amendment__by`.
    """
    in_error = [
        HistoryLine(tile.void_at, tile.void_by, "voided an image", reason=tile.void_reason)
        for tile in voided
        if tile.void_at
    ]
    lines = [HistoryLine(case.opened_at, str(case.opened_by), "opened the case"), *review_lines(case), *in_error]
    for report in reports:
        what = f"signed version {report.version}, {report.get_kind_display().lower()}"
        lines.append(
            HistoryLine(
                report.signed_at, str(report.signed_by), what, reason=report.reason, report_version=report.version
            )
        )
        if amendment := getattr(report, "amendment", None):
            act = "began to correct" if amendment.kind == "corrected" else "began to amend"
            what = f"{act} version {report.version}"
            lines.append(HistoryLine(amendment.at, str(amendment.by), what, reason=amendment.reason))
    if void := getattr(case, "void", None):
        lines.append(HistoryLine(void.at, str(void.by), "voided the case", reason=void.reason))
    return sorted(lines, key=lambda line: line.until or line.at, reverse=True)[:LINES]


def review_lines(case: Case) -> list[HistoryLine]:
    """A line for each reader and day, however many images they reviewed."""
    rows: Iterable[Any] = (
        Review.objects.filter(image__case=case)
        .order_by()
        .annotate(day=TruncDate("created_at"))
        .values("day", "verdict", "reader", "reader__full_name", "reader__email")
        .annotate(n=Count("pk"), first=Min("created_at"), last=Max("created_at"))
    )
    days: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        days.setdefault((row["day"], row["reader"]), []).append(row)
    return [
        HistoryLine(
            at=min(row["first"] for row in group),
            who=str(User(full_name=group[0]["reader__full_name"], email=group[0]["reader__email"])),
            what=review_sentence({row["verdict"]: row["n"] for row in group}),
            until=max(row["last"] for row in group),
        )
        for group in days.values()
    ]


def review_sentence(counts: dict[str, int]) -> str:
    """`reviewed: 10 confirmed, 2 corrected`, in the order of the verdicts."""
    parts = (f"{counts[verdict]} {verdict.label.lower()}" for verdict in Verdict if verdict in counts)
    return f"reviewed: {', '.join(parts)}"
