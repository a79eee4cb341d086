"""The shapes of the API, exactly as clients rely on them. Additions only."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from classifier.models import Case, CellImage, ImageStatus, Prediction, Review, Verdict
from ml.labels import CELL_TYPES


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


class VoidSerializer(serializers.Serializer[Any]):
    """An image that was entered in error."""

    reason = serializers.CharField()
    at = serializers.DateTimeField()


class CellImageSerializer(serializers.ModelSerializer[CellImage]):
    """One picture, and how far it has come. `prediction`, `failure` and `review` are null until there is one."""

    case = serializers.UUIDField(source="case_id")
    status = serializers.ChoiceField(ImageStatus.choices)
    url = serializers.HyperlinkedIdentityField(view_name="api-image", lookup_field="pk", lookup_url_kwarg="image_id")
    prediction = serializers.SerializerMethodField()
    failure = serializers.SerializerMethodField()
    review = serializers.SerializerMethodField()
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

    @extend_schema_field(VoidSerializer(allow_null=True))
    def get_void(self, image: CellImage) -> dict[str, Any] | None:
        """Why the image was taken out as entered in error: then it counts nowhere. Null for all others."""
        return dict(VoidSerializer(image.void).data) if image.is_void else None

    @extend_schema_field(ReviewSerializer(allow_null=True))
    def get_review(self, image: CellImage) -> dict[str, Any] | None:
        """The review that counts; null until somebody has reviewed the image."""
        return image.current_review.as_dict() if image.current_review else None


class UploadedImageSerializer(serializers.ModelSerializer[CellImage]):
    """The answer to an upload: where to ask for the result."""

    url = serializers.HyperlinkedIdentityField(view_name="api-image", lookup_field="pk", lookup_url_kwarg="image_id")

    class Meta:
        model = CellImage
        fields = ("id", "status", "url")


class UploadSerializer(serializers.Serializer[Any]):
    file = serializers.FileField(help_text="One picture: JPEG, PNG, TIFF, BMP, WebP or HEIC.")


class CaseSerializer(serializers.ModelSerializer[Case]):
    url = serializers.HyperlinkedIdentityField(view_name="api-case", lookup_field="pk", lookup_url_kwarg="case_id")
    accession_number = serializers.CharField(max_length=64, required=False, allow_blank=True, allow_null=True)

    class Meta:
        model = Case
        fields = (
            "id",
            "accession_number",
            "patient_pseudonym",
            "specimen",
            "collected_at",
            "wbc_value",
            "wbc_source",
            "status",
            "opened_at",
            "url",
        )
        read_only_fields = ("id", "status", "opened_at")
        extra_kwargs: ClassVar = {
            name: {"allow_null": True} for name in ("patient_pseudonym", "specimen", "wbc_source")
        }

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A field that is null is a field that was not given."""
        return {name: value for name, value in fields.items() if value is not None}
