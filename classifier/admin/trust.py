"""Exports, blind re-reads, emergency accesses, and what was kept, held and erased."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.admin import signed_in
from classifier.admin.desk import DeskAdmin
from classifier.desk_filters import (
    EMERGENCY_ACCESS_FILTERS,
    ERASURE_FILTERS,
    EXPORT_FILTERS,
    LEGAL_HOLD_FILTERS,
    REMOVED_PICTURE_FILTERS,
    REREAD_FILTERS,
)
from classifier.models import (
    BlindReread,
    EmergencyAccess,
    Export,
    LegalHold,
    PseudonymErasure,
    RemovedPicture,
    RetentionRule,
)


@admin.register(Export)
class ExportAdmin(DeskAdmin):
    """Who asked for which table; the files are fetched from the page of exports."""

    list_display = ("requested_at", "kind", "shown_state", "rows_written", "requested_by", "expires_at")
    desk_filters = EXPORT_FILTERS
    list_select_related = ("requested_by",)
    exclude = ("file", "claim_token", "claim_expires_at", "position")

    @admin.display(description="state")
    def shown_state(self, export: Export) -> str:
        return str(export.state.label)


@admin.register(BlindReread)
class BlindRereadAdmin(DeskAdmin):
    list_display = ("drawn_at", "reader", "size", "drawn_from", "drawn_by", "closed_at")
    desk_filters = REREAD_FILTERS
    list_select_related = ("reader", "drawn_by")


@admin.register(EmergencyAccess)
class EmergencyAccessAdmin(DeskAdmin):
    """Who of another laboratory opened a case of this one, and why."""

    laboratory_path = "case__laboratory"
    list_display = ("opened_at", "case", "user", "reason", "expires_at")
    desk_filters = EMERGENCY_ACCESS_FILTERS
    list_select_related = ("case", "user")


@admin.register(RetentionRule)
class RetentionRuleAdmin(DeskAdmin):
    list_display = ("version", "at", "keep_days", "by", "reason")
    list_select_related = ("by",)
    ordering = ("-version",)


@admin.register(LegalHold)
class LegalHoldAdmin(DeskAdmin):
    laboratory_path = "case__laboratory"
    list_display = ("at", "case", "holds", "by", "reason")
    desk_filters = LEGAL_HOLD_FILTERS
    list_select_related = ("case", "by")
    ordering = ("-at", "-id")


@admin.register(RemovedPicture)
class RemovedPictureAdmin(DeskAdmin):
    list_display = ("at", "image", "rule")
    desk_filters = REMOVED_PICTURE_FILTERS
    list_select_related = ("image", "rule")
    ordering = ("-at", "-pk")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RemovedPicture]:
        # A laboratory has few rules, and each of them an index.
        rules = RetentionRule.objects.filter(laboratory=signed_in(request).laboratory_id).order_by()
        return RemovedPicture.objects.filter(rule__in=list(rules.values_list("pk", flat=True)))


@admin.register(PseudonymErasure)
class PseudonymErasureAdmin(DeskAdmin):
    """That a pseudonym was erased, and from how many cases; never which one it was."""

    list_display = ("at", "case_count", "by", "reason")
    desk_filters = ERASURE_FILTERS
    list_select_related = ("by",)

    @admin.display(description="cases")
    def case_count(self, erasure: PseudonymErasure) -> int:
        return len(erasure.cases)
