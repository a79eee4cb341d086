"""The audit desk: cases, images and predictions as they are. Facts can't be edited or deleted here, by anyone."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, F, Q, QuerySet
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html

from accounts.admin import VerbAdmin, signed_in
from accounts.roles import Verb
from classifier.model_registry import activate_version
from classifier.models import (
    Amendment,
    Case,
    CellImage,
    LaboratorySettings,
    ModelVersion,
    Prediction,
    Report,
    Review,
    Void,
    WorkerHeartbeat,
)
from classifier.readiness import queue_obstacle
from ml.errors import ModelUnavailable

admin.site.site_header = "HematoVision audit desk"
admin.site.site_title = "HematoVision"
admin.site.index_title = "Audit desk"


@admin.register(Case)
class CaseAdmin(VerbAdmin):
    list_display = ("accession_number", "status", "image_count", "opened_by", "opened_at")
    list_filter = ("status", "opened_at", ("opened_by", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("opened_by",)
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Case]:
        return Case.objects.with_counts().filter(pk__in=super().get_queryset(request))

    @admin.display(description="images")
    def image_count(self, case: Any) -> int:
        return int(case.images_total)


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
class CellImageAdmin(VerbAdmin):
    """Every picture and its way through the queue; the list's head tells how the queue stands."""

    laboratory_path = "case__laboratory"
    list_display = ("id", "case", "status", "failure_code", "attempts", "uploaded_by", "uploaded_at", "classified_at")
    list_filter = ("status", "failure_code", "uploaded_at", ("uploaded_by", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("case", "uploaded_by")
    date_hierarchy = "uploaded_at"
    show_full_result_count = False
    inlines = (PredictionInline,)
    exclude = ("file",)
    readonly_fields = ("picture",)

    @admin.display(description="picture")
    def picture(self, image: CellImage) -> str:
        return format_html('<a href="{}">Open the image page</a>', reverse("image", args=[image.pk]))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        mine = self.get_queryset(request)
        per_status = ", ".join(
            f"{row['count']} {row['status']}"
            for row in mine.order_by("status").values("status").annotate(count=Count("pk"))
        )
        queue = CellImage.objects.queue_state()
        oldest = f"the oldest for {int(queue.oldest_age.total_seconds())} s" if queue.oldest_age else "none waits"
        obstacle = queue_obstacle()
        title = f"Images of the laboratory: {per_status or 'none'}. Whole queue: {queue.waiting} waiting, {oldest}."
        context = {"title": f"{title} {obstacle.message}" if obstacle else title, **(extra_context or {})}
        return super().changelist_view(request, context)


@admin.register(Prediction)
class PredictionAdmin(VerbAdmin):
    laboratory_path = "image__case__laboratory"
    list_display = (
        "created_at",
        "image",
        "shown_label",
        "shown_confidence",
        "abstained",
        "reason_code",
        "model_version",
    )
    list_filter = ("model_version", "abstained", "reason_code", "label", "created_at")
    list_select_related = ("image", "model_version")
    date_hierarchy = "created_at"
    show_full_result_count = False

    @admin.display(description="class", ordering="label")
    def shown_label(self, prediction: Prediction) -> str:
        return str(prediction)

    @admin.display(description="confidence", ordering="confidence")
    def shown_confidence(self, prediction: Prediction) -> str:
        return f"{prediction.confidence:.3f}"


@admin.register(Review)
class ReviewAdmin(VerbAdmin):
    """What people said, withdrawn or not; the comment is on the image's page, for those who see the patient's case."""

    laboratory_path = "image__case__laboratory"
    list_display = ("created_at", "image", "reader", "verdict", "final_label", "model_said")
    list_filter = ("verdict", "final_label", "created_at", ("reader", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("image", "reader", "prediction")
    date_hierarchy = "created_at"
    show_full_result_count = False
    exclude = ("comment",)

    @admin.display(description="the model said")
    def model_said(self, review: Review) -> str:
        return str(review.prediction) if review.prediction else "-"


@admin.register(Report)
class ReportAdmin(VerbAdmin):
    """Every version that was signed, and whether it still is what was signed."""

    laboratory_path = "case__laboratory"
    list_display = ("signed_at", "case", "version", "kind", "signed_by", "whole")
    list_filter = ("kind", "signed_at", ("signed_by", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("case", "signed_by")
    date_hierarchy = "signed_at"
    show_full_result_count = False
    # Each line reads and hashes a whole report.
    list_per_page = 20
    exclude = ("payload_json",)

    @admin.display(description="as signed", boolean=True)
    def whole(self, report: Report) -> bool:
        return report.is_whole


@admin.register(Amendment)
class AmendmentAdmin(VerbAdmin):
    laboratory_path = "case__laboratory"
    list_display = ("at", "case", "report", "kind", "by")
    list_filter = ("kind", "at")
    list_select_related = ("case", "report", "by")
    show_full_result_count = False


@admin.register(Void)
class VoidAdmin(VerbAdmin):
    """What was entered in error."""

    list_display = ("at", "case", "image", "by")
    list_filter = ("at",)
    list_select_related = ("case", "image", "by")
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Void]:
        laboratory = signed_in(request).laboratory_id
        own = Q(case__laboratory=laboratory) | Q(image__case__laboratory=laboratory)
        return Void.objects.filter(own) if laboratory else Void.objects.none()


@admin.register(LaboratorySettings)
class LaboratorySettingsAdmin(VerbAdmin):
    """Every version of the laboratory's ranges, codes and policies; they are changed on the laboratory's page."""

    list_display = ("version", "made_at", "made_by", "target_count", "uploader_may_release", "abstain_below")
    list_select_related = ("made_by",)
    show_full_result_count = False


@admin.register(ModelVersion)
class ModelVersionAdmin(VerbAdmin):
    """Registered models. The platform operator makes one active: explicit and in the audit trail."""

    operator_may_view = True
    list_display = ("name", "version", "active", "registered_at", "prediction_count", "sha256")
    actions = ("make_active",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        # Model versions belong to the platform, not to a laboratory: whoever may look sees all.
        return ModelVersion.objects.annotate(predictions_total=Coalesce(Count("predictions"), 0)).order_by(
            F("registered_at").desc()
        )

    @admin.display(description="predictions")
    def prediction_count(self, version: Any) -> int:
        return int(version.predictions_total)

    def has_activate_permission(self, request: HttpRequest) -> bool:
        return signed_in(request).is_superuser

    @admin.action(description="Make this the active model", permissions=["activate"])
    def make_active(self, request: HttpRequest, chosen: QuerySet[ModelVersion]) -> HttpResponse | None:
        if len(chosen) != 1:
            self.message_user(request, "Choose exactly one model version.", messages.ERROR)
            return None
        version = chosen[0]
        try:
            activate_version(actor=signed_in(request), version=version)
        except ModelUnavailable as error:
            self.message_user(request, f"{version} was not activated. {error.message}", messages.ERROR)
            return None
        self.message_user(request, f"{version} is active: new images are classified by it.", messages.SUCCESS)
        return redirect("admin:classifier_modelversion_changelist")


@admin.register(WorkerHeartbeat)
class WorkerHeartbeatAdmin(VerbAdmin):
    operator_may_view = True
    list_display = ("host", "pid", "seen_at", "model_code", "model_sha256")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WorkerHeartbeat]:
        return WorkerHeartbeat.objects.order_by("-seen_at")
