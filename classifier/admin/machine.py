"""The models that were registered, and the workers that hold one."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from accounts.admin import signed_in
from classifier.admin.desk import DeskAdmin
from classifier.model_registry import activate_version
from classifier.models import ModelVersion, WorkerHeartbeat
from ml.errors import ModelUnavailable


@admin.register(ModelVersion)
class ModelVersionAdmin(DeskAdmin):
    """Registered models. The platform operator makes one active: explicit and in the audit trail."""

    operator_may_view = True
    list_display = ("name", "version", "active", "registered_at", "sha256")
    actions = ("make_active",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        # Model versions belong to the platform, not to a laboratory: whoever may look sees all.
        return ModelVersion.objects.order_by(F("registered_at").desc())

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
class WorkerHeartbeatAdmin(DeskAdmin):
    operator_may_view = True
    list_display = ("host", "pid", "seen_at", "model_code", "model_sha256")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return WorkerHeartbeat.objects.order_by("-seen_at")
