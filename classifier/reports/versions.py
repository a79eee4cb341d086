"""The versions of a case's report, each with what it is worth now."""

from dataclasses import dataclass

from classifier.models import Amendment, Case, CaseStatus, Report
from classifier.reports.standing import Standing, standing_of


@dataclass(frozen=True)
class ReportVersion:
    """A signed report, its standing, and, on the newest one, the decision to amend it that is under way."""

    report: Report
    standing: Standing
    amendment: Amendment | None = None

    @property
    def number(self) -> int:
        return self.report.version


def versions_of(case: Case) -> list[ReportVersion]:
    """All versions, the newest first, their content left to be read when it is asked for; two queries."""
    reports = list(
        Report.objects.filter(case=case).select_related("signed_by").defer("payload_json").order_by("-version")
    )
    for report in reports:
        report.case = case
    void = case.status == CaseStatus.VOID
    amendment = open_amendment(reports[0]) if reports else None
    return [
        ReportVersion(
            report,
            standing_of(is_newest=place == 0, being_amended=amendment is not None, void=void),
            amendment if place == 0 else None,
        )
        for place, report in enumerate(reports)
    ]


def open_amendment(newest: Report) -> Amendment | None:
    """The decision to amend the newest report; a decision names its report, so an older one is done with."""
    return Amendment.objects.filter(report=newest).select_related("by").first()


def version_of(report: Report) -> ReportVersion:
    """The report with its standing; two queries. `report.case` should be there already."""
    newest = Report.objects.filter(case=report.case_id).order_by("-version").only("pk", "version").first()
    is_newest = newest is None or newest.pk == report.pk
    amendment = open_amendment(report) if is_newest else None
    void = report.case.status == CaseStatus.VOID
    standing = standing_of(is_newest=is_newest, being_amended=amendment is not None, void=void)
    return ReportVersion(report, standing, amendment)
