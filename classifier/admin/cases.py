"""Cases, and what was entered in error."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from classifier.admin.desk import DeskAdmin
from classifier.desk_filters import CASE_FILTERS, VOID_FILTERS
from classifier.models import Case, Void


@admin.register(Case)
class CaseAdmin(DeskAdmin):
    list_display = ("accession_number", "status", "image_count", "opened_by", "opened_at")
    desk_filters = CASE_FILTERS
    list_select_related = ("opened_by",)
    ordering = ("-opened_at", "-id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Case]:
        return super().get_queryset(request).with_counts()  # type: ignore[attr-defined,no-any-return]

    @admin.display(description="images")
    def image_count(self, case: Any) -> int:
        return int(case.images_total)


@admin.register(Void)
class VoidAdmin(DeskAdmin):
    """What was entered in error."""

    list_display = ("at", "case", "image", "by")
    desk_filters = VOID_FILTERS
    list_select_related = ("case", "image", "by")
    ordering = ("-at", "-id")
