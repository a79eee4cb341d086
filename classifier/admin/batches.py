"""Many pictures handed in at once."""

from django.contrib import admin

from classifier.admin.desk import DeskAdmin
from classifier.desk_filters import BATCH_FILTERS
from classifier.models import Batch


@admin.register(Batch)
class BatchAdmin(DeskAdmin):
    """What was handed in, and how far it came; its files are on the batch's page, for those who see the case."""

    list_display = ("submitted_at", "case", "shown_state", "members_checked", "refused_code", "submitted_by")
    desk_filters = BATCH_FILTERS
    list_select_related = ("case", "submitted_by")
    ordering = ("-submitted_at", "-id")
    exclude = ("archive", "claim_token")

    @admin.display(description="state")
    def shown_state(self, batch: Batch) -> str:
        return str(batch.state.label)
