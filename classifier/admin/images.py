"""Every picture and its way through the queue."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from accounts.admin import signed_in
from accounts.roles import Verb
from classifier.admin.desk import DeskAdmin
from classifier.audit_desk import images_per_status
from classifier.desk_filters import IMAGE_FILTERS
from classifier.models import CellImage, Prediction
from classifier.readiness import queue_obstacle


class PredictionInline(admin.TabularInline):
    model = Prediction
    fields = (
        "created_at",
        "model_version",
        "label",
        "suggestion",
        "confidence",
        "abstained",
        "reason_code",
        "ood_score",
    )
    readonly_fields = fields
    extra = 0
    can_delete = False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return signed_in(request).may(Verb.AUDIT)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(CellImage)
class CellImageAdmin(DeskAdmin):
    """The list's head tells how the queue stands."""

    list_display = ("id", "case", "status", "failure_code", "attempts", "uploaded_by", "uploaded_at", "classified_at")
    desk_filters = IMAGE_FILTERS
    list_select_related = ("case", "uploaded_by")
    ordering = ("-uploaded_at", "-id")
    inlines = (PredictionInline,)
    exclude = ("file",)
    readonly_fields = ("picture",)

    @admin.display(description="picture")
    def picture(self, image: CellImage) -> str:
        return format_html('<a href="{}">Open the image page</a>', reverse("image", args=[image.pk]))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        per_status = ", ".join(f"{n} {status}" for status, n in images_per_status(signed_in(request).laboratory))
        queue = CellImage.objects.queue_state()
        oldest = f"the oldest for {int(queue.oldest_age.total_seconds())} s" if queue.oldest_age else "none waits"
        obstacle = queue_obstacle()
        title = f"Images of the laboratory: {per_status or 'none'}. Whole queue: {queue.waiting} waiting, {oldest}."
        context = {"title": f"{title} {obstacle.message}" if obstacle else title, **(extra_context or {})}
        return super().changelist_view(request, context)
