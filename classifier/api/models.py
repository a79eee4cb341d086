"""What the platform classifies with, and what the laboratory counts: model versions and cell types."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from classifier.active_model import bundle_of, signature_of
from classifier.api.etags import etag_of, tagged, unchanged
from classifier.api.filters import ListFilter
from classifier.api.views import acting
from classifier.laboratory_settings import settings_of
from classifier.model_page import shown_model
from classifier.models import ModelVersion
from classifier.paging import NewestFirst
from ml.labels import CELL_TYPES, display_name


class ModelVersionSerializer(serializers.ModelSerializer[ModelVersion]):
    """A model that was registered; at most one is active, which every new prediction comes from."""

    labels = serializers.ListField(child=serializers.ChoiceField(CELL_TYPES), help_text="The classes that it can say.")
    url = serializers.HyperlinkedIdentityField(view_name="api-model", lookup_field="pk", lookup_url_kwarg="version_id")

    class Meta:
        model = ModelVersion
        fields: tuple[str, ...] = (
            "id",
            "name",
            "version",
            "sha256",
            "labels",
            "preprocessing_version",
            "active",
            "registered_at",
            "url",
        )


class ModelVersionDetailSerializer(ModelVersionSerializer):
    """A model with its figures, each with its data set, n and interval, as on its card."""

    metrics = serializers.SerializerMethodField(help_text="By data set; see docs/model.md.")
    limits = serializers.SerializerMethodField(help_text="What the model does not know, in words.")
    warning = serializers.SerializerMethodField(help_text="What is wrong with its files; empty where nothing is.")

    class Meta(ModelVersionSerializer.Meta):
        fields = (*ModelVersionSerializer.Meta.fields, "metrics", "limits", "warning")

    def to_representation(self, instance: ModelVersion) -> dict[str, Any]:
        self.shown = shown_model(instance)
        return dict(super().to_representation(instance))

    def get_metrics(self, version: ModelVersion) -> dict[str, Any]:
        return dict(self.shown.metrics)

    def get_limits(self, version: ModelVersion) -> list[str]:
        return list(self.shown.card.limits) if self.shown.card else []

    def get_warning(self, version: ModelVersion) -> str:
        return self.shown.warning


class NewestRegistered(NewestFirst):
    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        return ("-registered_at", "-id")


class ModelList(ListAPIView[ModelVersion]):
    """All registered model versions, the newest first. They belong to the platform, so every laboratory sees all."""

    serializer_class = ModelVersionSerializer
    queryset = ModelVersion.objects.all()
    pagination_class = NewestRegistered

    @extend_schema(parameters=[ListFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        ListFilter.of(request)
        return self.list(request, *args, **kwargs)


class ModelDetail(APIView):
    """One model version with its figures and limits."""

    tagged = True

    @extend_schema(responses={200: ModelVersionDetailSerializer})
    def get(self, request: Request, version_id: UUID) -> HttpResponseBase:
        version = get_object_or_404(ModelVersion, pk=version_id)
        etag = etag_of(request, version.active, version.metrics, signature_of(bundle_of(version)))
        body = ModelVersionDetailSerializer(version, context={"request": request})
        return unchanged(request, etag) or tagged(body.data, etag)


class CellTypeSerializer(serializers.Serializer[Any]):
    """A cell type as the laboratory counts it. The range is in percent of leukocytes; null: there is none."""

    slug = serializers.ChoiceField(CELL_TYPES)
    name = serializers.CharField()
    range_low = serializers.FloatField(allow_null=True)
    range_high = serializers.FloatField(allow_null=True)
    loinc = serializers.CharField(allow_null=True, help_text="Null where the laboratory gives it no code.")


class CellTypesSerializer(serializers.Serializer[Any]):
    """The cell types in the laboratory's order, by the settings that count now."""

    settings_version = serializers.IntegerField(help_text="0 for the start values.")
    target_count = serializers.IntegerField(help_text="How many leukocytes a report should count.")
    cell_types = CellTypeSerializer(many=True)


class CellTypes(APIView):
    """What the laboratory counts: its order, its reference ranges, its codes."""

    tagged = True

    @extend_schema(responses={200: CellTypesSerializer})
    def get(self, request: Request) -> HttpResponseBase:
        settings = settings_of(acting(request).laboratory_id)  # type: ignore[arg-type]
        etag = etag_of(request, str(settings.laboratory_id), settings.version)
        rows = [
            {**rule, "name": display_name(rule["slug"]), "loinc": rule["loinc"] or None}
            for rule in settings.cell_types
            if rule["slug"] in CELL_TYPES
        ]
        body = {"settings_version": settings.version, "target_count": settings.target_count, "cell_types": rows}
        return unchanged(request, etag) or tagged(CellTypesSerializer(body).data, etag)
