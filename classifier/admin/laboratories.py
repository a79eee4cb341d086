"""The laboratory's ranges, codes and policies."""

from django.contrib import admin

from classifier.admin.desk import DeskAdmin
from classifier.models import LaboratorySettings


@admin.register(LaboratorySettings)
class LaboratorySettingsAdmin(DeskAdmin):
    """Every version of the laboratory's ranges, codes and policies; they are changed on the laboratory's page."""

    list_display = ("version", "made_at", "made_by", "target_count", "uploader_may_release", "abstain_below")
    list_select_related = ("made_by",)
    ordering = ("-version",)
