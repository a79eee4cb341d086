"""What was signed, and what was changed after that."""

from django.contrib import admin

from classifier.admin.desk import DeskAdmin
from classifier.desk_filters import AMENDMENT_FILTERS, REPORT_FILTERS
from classifier.models import Amendment, Report


@admin.register(Report)
class ReportAdmin(DeskAdmin):
    """Every version that was signed, and whether it still is what was signed."""

    list_display = ("signed_at", "case", "version", "kind", "signed_by", "whole")
    desk_filters = REPORT_FILTERS
    list_select_related = ("case", "signed_by")
    ordering = ("-signed_at", "-id")
    # Each line reads and hashes a whole report.
    list_per_page = 20
    exclude = ("payload_json",)

    @admin.display(description="as signed", boolean=True)
    def whole(self, report: Report) -> bool:
        return report.is_whole


@admin.register(Amendment)
class AmendmentAdmin(DeskAdmin):
    laboratory_path = "case__laboratory"
    list_display = ("at", "case", "report", "kind", "by")
    desk_filters = AMENDMENT_FILTERS
    list_select_related = ("case", "report", "by")
