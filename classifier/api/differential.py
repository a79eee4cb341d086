"""The differential of a case, as it stands at the moment of asking."""

from typing import Any
from uuid import UUID

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.roles import Verb
from classifier.api.etags import etag_of, tagged, unchanged
from classifier.api.views import acting
from classifier.differential import LEUKOCYTES, MIXED, OUTSIDE, PRE_CLASSIFIED, REVIEWED
from classifier.laboratory_settings import settings_of
from classifier.models import Case
from classifier.services.viewing import record_case_view
from classifier.tallies import differential_of, tally_of


class AbsoluteSerializer(serializers.Serializer[Any]):
    """In 10^9/L: the share times the analyser's WBC."""

    value = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class CellShareSerializer(serializers.Serializer[Any]):
    """A leukocyte type. Percent is 0-100, and null while no leukocyte is counted."""

    # `label` is also the name of an attribute of every field.
    label = serializers.ChoiceField(LEUKOCYTES)  # type: ignore[assignment]
    n = serializers.IntegerField()
    reviewed = serializers.IntegerField(help_text="How many of n a person has named.")
    pre_classified = serializers.IntegerField(help_text="How many of n only the model has named: not verified.")
    percent = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True, help_text="Exact 95 % limits: they cover sampling only.")
    high = serializers.FloatField(allow_null=True)
    range_low = serializers.FloatField(allow_null=True, help_text="The laboratory's reference range.")
    range_high = serializers.FloatField(allow_null=True)
    flag = serializers.ChoiceField(("H", "L"), allow_null=True, help_text="By the share before it is rounded.")
    absolute = AbsoluteSerializer(allow_null=True, help_text="Null where the case has no WBC.")


class OutsideCountSerializer(serializers.Serializer[Any]):
    """What is counted beside the leukocytes."""

    label = serializers.ChoiceField(OUTSIDE)  # type: ignore[assignment]
    n = serializers.IntegerField()
    per_100_wbc = serializers.FloatField(allow_null=True, help_text="Of erythroblasts; null for the others.")


class BlockerSerializer(serializers.Serializer[Any]):
    """Why the case can't be released yet."""

    code = serializers.ChoiceField(
        ("case_void", "no_images", "queued", "failed", "unidentified", "unreviewed", "below_target_count")
    )
    count = serializers.IntegerField()
    message = serializers.CharField()


class DifferentialSerializer(serializers.Serializer[Any]):
    """The share of each leukocyte type among the `n` leukocytes counted, bands among the neutrophils."""

    n = serializers.IntegerField()
    basis = serializers.ChoiceField((REVIEWED, PRE_CLASSIFIED, MIXED))
    cells = CellShareSerializer(many=True)
    outside = OutsideCountSerializer(many=True)
    blocked_by = BlockerSerializer(many=True)
    reviewed = serializers.IntegerField(help_text="Cells of all types that a person has named.")
    pre_classified = serializers.IntegerField(help_text="Cells of all types that only the model has named.")
    unidentified = serializers.IntegerField(help_text="Images that the model gave no class: counted nowhere.")
    unusable = serializers.IntegerField()
    target_count = serializers.IntegerField()
    settings_version = serializers.IntegerField(help_text="Of the laboratory's settings; 0 for the start values.")
    wbc = serializers.FloatField(allow_null=True, help_text="The analyser's, in 10^9/L.")


class CaseDifferential(APIView):
    """The differential of a case: reviewed and pre-classified cells, and what blocks its release."""

    verb = Verb.SEE
    tagged = True

    @extend_schema(responses={200: DifferentialSerializer})
    def get(self, request: Request, case_id: UUID) -> HttpResponseBase:
        case = get_object_or_404(Case.objects.visible_to(acting(request)), pk=case_id)
        counted = differential_of(case, tally_of(case), settings_of(case.laboratory_id))
        body = counted.as_json()
        etag = etag_of(request, body)
        if known := unchanged(request, etag):
            return known
        if request.method == "GET":
            record_case_view(actor=acting(request), case=case, page="api-case-differential")
        return tagged(body, etag)
