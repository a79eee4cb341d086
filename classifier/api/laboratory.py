"""The settings of the own laboratory over the API: everybody of it reads them, an administrator saves new versions."""

from typing import Any

from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.roles import Verb
from classifier import services
from classifier.api.etags import etag_of, tagged, unchanged
from classifier.api.serializers import KnownFields
from classifier.api.views import acting, read
from classifier.laboratory_settings import settings_of
from classifier.models import LaboratorySettings


class BoundedFloatField(serializers.FloatField):
    """A whole number of hundreds of digits is no float either; DRF itself would fail on it."""

    def to_internal_value(self, data: Any) -> float:
        try:
            return super().to_internal_value(data)
        except OverflowError:
            self.fail("invalid")


class CellTypeRuleSerializer(KnownFields):
    """A cell type in the laboratory's order, with its reference range in percent of leukocytes and its code."""

    slug = serializers.CharField(max_length=24)
    range_low = BoundedFloatField(allow_null=True)
    range_high = BoundedFloatField(allow_null=True)
    loinc = serializers.CharField(allow_blank=True, max_length=16)


class NewSettingsSerializer(KnownFields):
    """A whole version. `based_on` is the version that it was made from: where a newer one counts, nothing is saved."""

    target_count = serializers.IntegerField()
    uploader_may_release = serializers.BooleanField()
    abstain_below = BoundedFloatField(allow_null=True, help_text="A confidence (a fraction), or null.")
    time_zone = serializers.CharField(max_length=64, help_text="IANA, for example Europe/Berlin.")
    cell_types = CellTypeRuleSerializer(many=True)
    based_on = serializers.IntegerField(required=False)


class SettingsSerializer(serializers.ModelSerializer[LaboratorySettings]):
    """The version that counts now; version 0 are the start values, which nobody has saved."""

    made_by = serializers.SerializerMethodField()
    cell_types = CellTypeRuleSerializer(many=True)

    class Meta:
        model = LaboratorySettings
        fields = (
            "version",
            "target_count",
            "uploader_may_release",
            "abstain_below",
            "time_zone",
            "cell_types",
            "made_by",
            "made_at",
        )

    def get_made_by(self, settings: LaboratorySettings) -> str | None:
        return str(settings.made_by) if settings.made_by else None


class SettingsOfLaboratory(APIView):
    """Ranges, codes, order, target count and policies of the laboratory."""

    verb = Verb.ADMINISTER
    tagged = True

    @extend_schema(responses={200: SettingsSerializer})
    def get(self, request: Request) -> HttpResponseBase:
        settings = settings_of(acting(request).laboratory_id)  # type: ignore[arg-type]
        etag = etag_of(request, str(settings.laboratory_id), settings.version)
        return unchanged(request, etag) or tagged(SettingsSerializer(settings).data, etag)

    @extend_schema(request=NewSettingsSerializer, responses={201: SettingsSerializer})
    def post(self, request: Request) -> Response:
        """Save a new version, which counts from now on. Reports keep the version that they were signed under."""
        saved = services.save_laboratory_settings(actor=acting(request), **read(NewSettingsSerializer, request))
        return Response(SettingsSerializer(saved).data, status=201)
