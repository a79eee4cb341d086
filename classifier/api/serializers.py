"""The shapes of the API, exactly as clients rely on them. Additions only."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db.models import Count
from django.urls import reverse
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from accounts.models import User
from classifier.errors import InvalidInput
from classifier.models import Case, CaseStatus, CellImage, ImageStatus, Prediction, Review, Verdict, Void
from classifier.reports.standing import Standing
from classifier.reports.versions import versions_of
from ml.labels import CELL_TYPES


class KnownFields(serializers.Serializer[Any]):
    """A body with a field that is not known is refused: a misspelt name would silently lose what was meant."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [name for name, field in self.fields.items() if not field.read_only]
            if unknown := sorted(str(name)[:40] for name in set(data) - set(known)):
                message = f"There is no field {', '.join(unknown[:3])} to be set here; there is {', '.join(known)}."
                raise InvalidInput("unknown_field", message)
        return super().to_internal_value(data)


class ModelReferenceSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.CharField()
    sha256 = serializers.CharField()


class FoundLeukocyteSerializer(serializers.Serializer[Any]):
    """One white cell of a field. Its `label` is null when the model abstains."""

    # `label` is also the name of an attribute of every field.
    box = serializers.ListField(child=serializers.IntegerField(), help_text="left, top, right, bottom in pixels")
    label = serializers.ChoiceField(CELL_TYPES, allow_null=True)  # type: ignore[assignment]
    suggestion = serializers.ChoiceField(CELL_TYPES, allow_null=True)
    confidence = serializers.FloatField(help_text="Calibrated; a fraction.")
    reason = serializers.CharField(allow_null=True)
    reason_code = serializers.CharField(allow_null=True)


class PredictionSerializer(serializers.ModelSerializer[Prediction]):
    """What the model said. `label` is null when it abstains; `suggestion` is the most probable class even then."""

    label = serializers.SerializerMethodField()  # type: ignore[assignment]
    suggestion = serializers.SerializerMethodField()
    probabilities = serializers.DictField(child=serializers.FloatField(), help_text="Calibrated; fractions by class.")
    conformal_set = serializers.ListField(
        child=serializers.ChoiceField(CELL_TYPES), help_text="The classes that can't be ruled out at 95 %."
    )
    reason = serializers.SerializerMethodField()
    box = serializers.ListField(
        child=serializers.IntegerField(), allow_null=True, help_text="left, top, right, bottom in pixels"
    )
    leukocytes = FoundLeukocyteSerializer(
        many=True, help_text="Every white cell of a field, the most strongly stained first. None are counted."
    )
    model = ModelReferenceSerializer(source="model_version")

    class Meta:
        model = Prediction
        fields = (
            "label",
            "suggestion",
            "confidence",
            "probabilities",
            "conformal_set",
            "abstained",
            "reason",
            "reason_code",
            "ood_score",
            "box",
            "leukocytes",
            "model",
            "duration_ms",
            "created_at",
        )

    @extend_schema_field(serializers.ChoiceField(CELL_TYPES, allow_null=True))
    def get_label(self, prediction: Prediction) -> str | None:
        return prediction.label or None

    @extend_schema_field(serializers.ChoiceField(CELL_TYPES, allow_null=True))
    def get_suggestion(self, prediction: Prediction) -> str | None:
        return prediction.suggestion or None

    def get_reason(self, prediction: Prediction) -> str | None:
        return prediction.reason or None


class FailureSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class ReviewSerializer(serializers.ModelSerializer[Review]):
    """One verdict of one reader. `previous` is the review that counted before it."""

    verdict = serializers.ChoiceField(Verdict.values)
    final_label = serializers.ChoiceField(CELL_TYPES, allow_null=True)
    previous = serializers.UUIDField(allow_null=True)
    reader = serializers.CharField()

    class Meta:
        model = Review
        fields = ("id", "verdict", "final_label", "comment", "reader", "previous", "created_at")
        read_only_fields = fields

    def to_representation(self, instance: Review) -> dict[str, Any]:
        return instance.as_dict()


class PersonSerializer(serializers.ModelSerializer[User]):
    """Somebody of the laboratory."""

    name = serializers.CharField(source="__str__")

    class Meta:
        model = User
        fields = ("id", "name", "role")


class VoidingSerializer(serializers.ModelSerializer[Void]):
    """Why something was taken out of all that counts; it stays readable."""

    by = serializers.CharField()

    class Meta:
        model = Void
        fields = ("reason", "by", "at")


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A classified image",
            value={
                "id": "9a4c7d5e-1b1f-4c55-8f5b-7c0b3c1d2e66",
                "case": "0b6f2c3e-6d0a-4f0f-9a55-2f0f0a3f4c11",
                "status": "classified",
                "url": "https://laboratory.example/api/v1/images/9a4c7d5e-1b1f-4c55-8f5b-7c0b3c1d2e66/",
                "original_name": "cell.jpg",
                "width": 360,
                "height": 363,
                "uploaded_at": "2026-11-20T09:01:00Z",
                "classified_at": "2026-11-20T09:01:01Z",
                "prediction": {
                    "label": "neutrophil",
                    "suggestion": "neutrophil",
                    "confidence": 0.97,
                    "probabilities": {"neutrophil": 0.97, "eosinophil": 0.03},
                    "conformal_set": ["neutrophil"],
                    "abstained": False,
                    "reason": None,
                    "reason_code": "",
                    "ood_score": 0.31,
                    "box": [82, 75, 281, 290],
                    "leukocytes": [],
                    "model": {"name": "hematovision-mobilenetv2", "version": "1.3.0", "sha256": "5f0c..."},
                    "duration_ms": 12.5,
                    "created_at": "2026-11-20T09:01:01Z",
                },
                "failure": None,
                "review": None,
                "batch": None,
                "void": None,
            },
            response_only=True,
        )
    ]
)
class CellImageSerializer(serializers.ModelSerializer[CellImage]):
    """One picture, and how far it has come. `prediction`, `failure` and `review` are null until there is one."""

    case = serializers.UUIDField(source="case_id")
    status = serializers.ChoiceField(ImageStatus.choices)
    url = serializers.HyperlinkedIdentityField(view_name="api-image", lookup_field="pk", lookup_url_kwarg="image_id")
    prediction = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()
    review = serializers.SerializerMethodField()
    batch = serializers.UUIDField(source="batch_id", allow_null=True)
    void = serializers.SerializerMethodField()

    class Meta:
        model = CellImage
        fields = (
            "id",
            "case",
            "status",
            "url",
            "original_name",
            "width",
            "height",
            "uploaded_at",
            "classified_at",
            "prediction",
            "failure",
            "review",
            "batch",
            "void",
        )
        read_only_fields = fields

    @extend_schema_field(PredictionSerializer(allow_null=True))
    def get_prediction(self, image: CellImage) -> dict[str, Any] | None:
        prediction = image.latest_prediction
        return dict(PredictionSerializer(prediction).data) if prediction else None

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, image: CellImage) -> dict[str, str] | None:
        if not image.failure_code:
            return None
        return {"code": image.failure_code, "message": image.failure_message}

    @extend_schema_field(ReviewSerializer(allow_null=True))
    def get_review(self, image: CellImage) -> dict[str, Any] | None:
        """The review that counts; null until somebody has reviewed the image."""
        return image.current_review.as_dict() if image.current_review else None

    @extend_schema_field(VoidingSerializer(allow_null=True))
    def get_void(self, image: CellImage) -> dict[str, Any] | None:
        """Why the image was taken out as entered in error: then it counts nowhere. Null for all others."""
        return dict(VoidingSerializer(image.void).data) if image.is_void else None


class UploadedImageSerializer(serializers.Serializer[Any]):
    """The answer to an upload, as `uploaded_image` writes it: where to ask for the result."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(ImageStatus.choices)
    url = serializers.URLField()


def uploaded_image(request: Request, image: CellImage) -> dict[str, str]:
    """Written by hand: a serializer makes all of its fields anew for each answer, which takes as long as a query."""
    return {"id": str(image.pk), "status": image.status, "url": image_url(request, image)}


def image_url(request: Request, image: CellImage) -> str:
    return request.build_absolute_uri(reverse("api-image", args=[image.pk]))


class UploadSerializer(serializers.Serializer[Any]):
    file = serializers.FileField(help_text="One picture: JPEG, PNG, TIFF, BMP, WebP or HEIC.")


class CaseFields(serializers.ModelSerializer[Case]):
    """What a client may say of a specimen."""

    class Meta:
        model = Case
        fields: tuple[str, ...] = ("patient_pseudonym", "specimen", "collected_at", "wbc_value", "wbc_source")
        extra_kwargs: ClassVar = {
            name: {"allow_null": True} for name in ("patient_pseudonym", "specimen", "wbc_source")
        }


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A specimen with its WBC",
            value={
                "accession_number": "A-1001",
                "patient_pseudonym": "P-17",
                "specimen": "EDTA blood",
                "collected_at": "2026-11-20T08:15:00Z",
                "wbc_value": 7.25,
                "wbc_source": "XN-1000",
            },
            request_only=True,
        )
    ]
)
class NewCaseSerializer(KnownFields, CaseFields):
    """What is known of a specimen. Without an accession number one is generated."""

    accession_number = serializers.CharField(max_length=64, required=False, allow_blank=True, allow_null=True)

    class Meta(CaseFields.Meta):
        fields = ("accession_number", *CaseFields.Meta.fields)

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A field that is null is a field that was not given."""
        return {name: value for name, value in fields.items() if value is not None}


class ChangedCaseSerializer(KnownFields, CaseFields):
    """What is to be different: a field that is left out stays, null or an empty text takes it away."""

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        texts = ("patient_pseudonym", "specimen", "wbc_source")
        return {name: "" if value is None and name in texts else value for name, value in fields.items()}


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A case",
            value={
                "id": "0b6f2c3e-6d0a-4f0f-9a55-2f0f0a3f4c11",
                "accession_number": "A-1001",
                "patient_pseudonym": "P-17",
                "specimen": "EDTA blood",
                "collected_at": "2026-11-20T08:15:00Z",
                "wbc_value": 7.25,
                "wbc_source": "XN-1000",
                "status": "open",
                "opened_at": "2026-11-20T09:00:00Z",
                "assigned_to": None,
                "url": "https://laboratory.example/api/v1/cases/0b6f2c3e-6d0a-4f0f-9a55-2f0f0a3f4c11/",
            },
            response_only=True,
        )
    ]
)
class CaseSerializer(serializers.ModelSerializer[Case]):
    """A case as lists show it."""

    status = serializers.ChoiceField(CaseStatus.choices)
    assigned_to = PersonSerializer(allow_null=True)
    url = serializers.HyperlinkedIdentityField(view_name="api-case", lookup_field="pk", lookup_url_kwarg="case_id")

    class Meta:
        model = Case
        fields: tuple[str, ...] = (
            "id",
            "accession_number",
            "patient_pseudonym",
            "specimen",
            "collected_at",
            "wbc_value",
            "wbc_source",
            "status",
            "opened_at",
            "assigned_to",
            "url",
        )
        read_only_fields: tuple[str, ...] = fields


class ImageCountsSerializer(serializers.Serializer[Any]):
    """How many images of a case are in which state; void ones are counted as `void` alone."""

    total = serializers.IntegerField(help_text="Without void ones.")
    queued = serializers.IntegerField()
    claimed = serializers.IntegerField()
    classified = serializers.IntegerField(help_text="Not reviewed yet.")
    reviewed = serializers.IntegerField()
    failed = serializers.IntegerField()
    void = serializers.IntegerField()


class ReportReferenceSerializer(serializers.Serializer[Any]):
    """The newest report of a case."""

    id = serializers.UUIDField()
    version = serializers.IntegerField()
    standing = serializers.ChoiceField([choice for choice in Standing.choices if choice[0] != Standing.DRAFT])
    url = serializers.URLField()


class CaseDetailSerializer(CaseSerializer):
    """A case with what its images and reports come to. Its shares: `differential/`."""

    opened_by = PersonSerializer()
    images = serializers.SerializerMethodField()
    report = serializers.SerializerMethodField()
    void = serializers.SerializerMethodField()

    class Meta(CaseSerializer.Meta):
        fields = (*CaseSerializer.Meta.fields, "opened_by", "images", "report", "void")
        read_only_fields = fields

    @extend_schema_field(ImageCountsSerializer)
    def get_images(self, case: Case) -> dict[str, int]:
        groups = case.images.order_by().values("status").annotate(n=Count("pk"), n_void=Count("void"))
        counts = dict.fromkeys(ImageStatus.values, 0) | {row["status"]: row["n"] - row["n_void"] for row in groups}
        return {"total": sum(counts.values()), **counts, "void": sum(row["n_void"] for row in groups)}

    @extend_schema_field(ReportReferenceSerializer(allow_null=True))
    def get_report(self, case: Case) -> dict[str, Any] | None:
        versions = versions_of(case)
        if not versions:
            return None
        newest, standing = versions[0].report, versions[0].standing
        url = self.context["request"].build_absolute_uri(reverse("api-report", args=[newest.pk]))
        return {"id": newest.pk, "version": newest.version, "standing": standing, "url": url}

    @extend_schema_field(VoidingSerializer(allow_null=True))
    def get_void(self, case: Case) -> dict[str, Any] | None:
        return dict(VoidingSerializer(case.void).data) if hasattr(case, "void") else None


class AccessionNumberSerializer(KnownFields):
    """Searched for as it is, in any letter case."""

    accession_number = serializers.CharField(max_length=64)


class FoundCasesSerializer(serializers.Serializer[Any]):
    """All that was found, at once: `next` and `previous` are always null."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = CaseSerializer(many=True)


class AssignmentSerializer(KnownFields):
    """To whom the case is given; null takes it back."""

    reader = serializers.UUIDField(allow_null=True, help_text="An id of /api/v1/reviewers/.")


class ReasonSerializer(KnownFields):
    """Why; it stays readable beside what is void."""

    reason = serializers.CharField(max_length=500)
