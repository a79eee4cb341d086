"""Trying a model version on a case before anybody makes it the active one: asking for it, and what came of it."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import ApiToken, User
from classifier import services
from classifier.api.filters import ListFilter
from classifier.api.permissions import MayDoVerb
from classifier.api.serializers import FailureSerializer, KnownFields, ModelReferenceSerializer
from classifier.api.views import acting, read
from classifier.errors import InvalidInput
from classifier.models import Case, ModelTrial, ModelVersion
from classifier.services.trials import MAY_TRY
from classifier.trials import Comparison, TrialState, comparison_of, failure_of, progress_of, state_of, trials_of
from ml.labels import CELL_TYPES


class MayTry(MayDoVerb):
    """Asking for a trial needs one verb of MAY_TRY, which the token's scopes have to hold as well."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if request.method in SAFE_METHODS:
            return super().has_permission(request, view)
        if not isinstance(request.user, User):
            return False
        token = request.auth if isinstance(request.auth, ApiToken) else None
        return any(request.user.may(verb) and (token is None or token.may(verb)) for verb in MAY_TRY)


@extend_schema_serializer(
    examples=[OpenApiExample("A version", value={"model_version": "6f2d0b7e-3b1c-4e9a-9c55-1d2f3a4b5c6d"})]
)
class NewTrialSerializer(KnownFields):
    model_version = serializers.UUIDField(help_text="An id of /api/v1/models/ that is not the active one.")


class TrialSerializer(serializers.ModelSerializer[ModelTrial]):
    """One version tried on one case. `failure` says why a trial came to nothing."""

    case = serializers.UUIDField(source="case_id")
    model_version = serializers.UUIDField(source="model_version_id")
    model = ModelReferenceSerializer(source="model_version")
    state = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()

    class Meta:
        model = ModelTrial
        fields: tuple[str, ...] = (
            "id",
            "case",
            "model_version",
            "model",
            "state",
            "failure",
            "requested_at",
            "finished_at",
            "url",
        )

    @extend_schema_field(serializers.ChoiceField(TrialState.choices))
    def get_state(self, trial: ModelTrial) -> str:
        return state_of(trial)

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, trial: ModelTrial) -> dict[str, str] | None:
        return {"code": trial.failure_code, "message": failure_of(trial)} if trial.failure_code else None

    @extend_schema_field(serializers.URLField())
    def get_url(self, trial: ModelTrial) -> str:
        return str(self.context["request"].build_absolute_uri(reverse("api-trial", args=[trial.pk])))


class PairSerializer(serializers.Serializer[Any]):
    """`n` images that count as `before` and would count as `after`; null for unidentified."""

    before = serializers.ChoiceField(CELL_TYPES, allow_null=True)
    after = serializers.ChoiceField(CELL_TYPES, allow_null=True)
    n = serializers.IntegerField()


class OutcomeSerializer(serializers.Serializer[Any]):
    """What would be different. The last three are about the images that people have reviewed with a class."""

    compared = serializers.IntegerField()
    changed = serializers.IntegerField()
    became_another = serializers.IntegerField()
    became_unidentified = serializers.IntegerField()
    became_identified = serializers.IntegerField()
    pairs = PairSerializer(many=True)
    reviewed = serializers.IntegerField()
    right_before = serializers.IntegerField(help_text="Of the reviewed: where the model said what people said.")
    right_after = serializers.IntegerField(help_text="Of the reviewed: where the tried model does.")


class TrialDetailSerializer(TrialSerializer):
    """With how far it is, and what would be different under the tried model (null until it is finished)."""

    total = serializers.IntegerField(help_text="Images that the trial is about.")
    tried = serializers.IntegerField()
    unusable = serializers.IntegerField(help_text="Of the tried ones: could not be read or classified.")
    outcome = OutcomeSerializer(allow_null=True)

    class Meta(TrialSerializer.Meta):
        fields = (*TrialSerializer.Meta.fields, "total", "tried", "unusable", "outcome")

    def to_representation(self, trial: ModelTrial) -> dict[str, Any]:
        progress = progress_of(trial)
        outcome = outcome_as_json(comparison_of(trial)) if state_of(trial) == TrialState.FINISHED else None
        so_far = {"total": progress.total, "tried": progress.tried, "unusable": progress.unusable, "outcome": outcome}
        return {**TrialSerializer(trial, context=self.context).data, **so_far}


def outcome_as_json(comparison: Comparison) -> dict[str, Any]:
    pairs = sorted(comparison.pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "compared": comparison.total,
        "changed": comparison.changed,
        "became_another": comparison.became_another,
        "became_unidentified": comparison.became_unidentified,
        "became_identified": comparison.became_identified,
        "pairs": [{"before": before or None, "after": after or None, "n": n} for (before, after), n in pairs],
        "reviewed": comparison.agreement.reviewed,
        "right_before": comparison.agreement.before,
        "right_after": comparison.agreement.after,
    }


def visible(user: User) -> QuerySet[ModelTrial]:
    return trials_of(user).select_related("model_version").defer("model_version__metrics")


class CaseTrials(ListAPIView[ModelTrial]):
    """The trials of a case, the newest first; POST asks for one."""

    serializer_class = TrialSerializer
    queryset = ModelTrial.objects.all()
    permission_classes = (MayTry,)

    def get_case(self) -> Case:
        return get_object_or_404(Case.objects.visible_to(acting(self.request)), pk=self.kwargs["case_id"])

    def get_queryset(self) -> QuerySet[ModelTrial]:
        ListFilter.of(self.request)
        return visible(acting(self.request)).filter(case=self.get_case())

    @extend_schema(parameters=[ListFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)

    @extend_schema(request=NewTrialSerializer, responses={202: TrialDetailSerializer})
    def post(self, request: Request, case_id: UUID) -> Response:
        """Ask for a trial; it changes nothing that counts. One of that version that still waits is answered again."""
        case = self.get_case()
        wanted = read(NewTrialSerializer, request)["model_version"]
        version = ModelVersion.objects.filter(pk=wanted).first()
        if version is None:
            raise InvalidInput("unknown_model_version", "No model version has that id; /api/v1/models/ lists them.")
        trial = services.try_model(actor=acting(request), case=case, model_version=version)
        body = TrialDetailSerializer(trial, context=self.get_serializer_context()).data
        return Response(body, status=202, headers={"Location": str(body["url"])})


class TrialDetail(APIView):
    """One trial: how far it is, and what would be different."""

    @extend_schema(responses={200: TrialDetailSerializer})
    def get(self, request: Request, trial_id: UUID) -> Response:
        trial = get_object_or_404(visible(acting(request)), pk=trial_id)
        return Response(TrialDetailSerializer(trial, context={"request": request}).data)
