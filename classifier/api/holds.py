"""Legal holds over the API: everybody of the laboratory sees them, an administrator places and lifts them."""

from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.roles import Verb
from classifier import services
from classifier.api.serializers import ReasonSerializer
from classifier.api.views import acting, cases_of, read
from classifier.models import LegalHold


class HoldStepSerializer(serializers.ModelSerializer[LegalHold]):
    """A hold that was placed, or (`holds` is false) lifted."""

    by = serializers.CharField()

    class Meta:
        model = LegalHold
        fields = ("version", "holds", "reason", "by", "at")


class HoldSerializer(serializers.Serializer[Any]):
    """Whether the case is on hold now, and every step that led there, the newest first."""

    on_hold = serializers.BooleanField()
    steps = HoldStepSerializer(many=True)


class CaseHold(APIView):
    """The holds of a case: while it is on hold, nothing of it is removed or erased."""

    verb = Verb.ADMINISTER

    @extend_schema(responses={200: HoldSerializer})
    def get(self, request: Request, case_id: UUID) -> Response:
        case = get_object_or_404(cases_of(request), pk=case_id)
        steps = list(LegalHold.objects.filter(case=case).select_related("by").order_by("-version"))
        on_hold = bool(steps) and steps[0].holds
        return Response(HoldSerializer({"on_hold": on_hold, "steps": steps}).data)

    @extend_schema(request=ReasonSerializer, responses={201: HoldStepSerializer})
    def post(self, request: Request, case_id: UUID) -> Response:
        """Place a hold. A case that is on hold already answers 409 `already_on_hold`."""
        case = get_object_or_404(cases_of(request), pk=case_id)
        step = services.place_hold(actor=acting(request), case=case, **read(ReasonSerializer, request))
        return Response(HoldStepSerializer(step).data, status=201)


class CaseHoldLift(APIView):
    """The end of a hold."""

    verb = Verb.ADMINISTER

    @extend_schema(request=ReasonSerializer, responses={201: HoldStepSerializer})
    def post(self, request: Request, case_id: UUID) -> Response:
        """Lift the hold: the retention rule counts for the case again. Without one it answers 409 `not_on_hold`."""
        case = get_object_or_404(cases_of(request), pk=case_id)
        step = services.lift_hold(actor=acting(request), case=case, **read(ReasonSerializer, request))
        return Response(HoldStepSerializer(step).data, status=201)
