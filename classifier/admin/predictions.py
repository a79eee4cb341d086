"""What the model said, and what people said of it."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from classifier.admin.desk import DeskAdmin
from classifier.desk_filters import PREDICTION_FILTERS, REVIEW_FILTERS
from classifier.models import ExportKind, Prediction, Review


@admin.register(Prediction)
class PredictionAdmin(DeskAdmin):
    """Every pre-classification, and what the review that counts says of it."""

    list_display = (
        "created_at",
        "image",
        "model_said",
        "shown_confidence",
        "reason_code",
        "reader_said",
        "reader",
        "uploader",
        "model_version",
    )
    desk_filters = PREDICTION_FILTERS
    export_kind = ExportKind.PREDICTIONS
    list_select_related = ("image__current_review__reader", "image__uploaded_by", "model_version")
    sortable_by = ("created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Prediction]:
        # The list shows none of the large columns; of its version a row shows the name, and its figures are long.
        large = ("heat_map", "leukocytes", "probabilities", "conformal_set", "box", "model_version__metrics")
        return super().get_queryset(request).defer(*large)

    @admin.display(description="the model said")
    def model_said(self, prediction: Prediction) -> str:
        return str(prediction)

    @admin.display(description="confidence")
    def shown_confidence(self, prediction: Prediction) -> str:
        return f"{prediction.confidence:.3f}"

    @admin.display(description="the reader said")
    def reader_said(self, prediction: Prediction) -> str:
        review = counting(prediction)
        if review is None:
            return "-"
        return review.get_final_label_display() if review.final_label else review.get_verdict_display()

    @admin.display(description="reader")
    def reader(self, prediction: Prediction) -> str:
        review = counting(prediction)
        return str(review.reader) if review else "-"

    @admin.display(description="uploaded by")
    def uploader(self, prediction: Prediction) -> str:
        return str(prediction.image.uploaded_by)


def counting(prediction: Prediction) -> Review | None:
    """The review that counts, where it is about this very prediction."""
    review = prediction.image.current_review
    return review if review and review.prediction_id == prediction.pk else None


@admin.register(Review)
class ReviewAdmin(DeskAdmin):
    """What people said, withdrawn or not; the comment is on the image's page, for those who see the patient's case."""

    list_display = ("created_at", "image", "reader", "verdict", "final_label", "model_said", "confidence", "counts")
    desk_filters = REVIEW_FILTERS
    export_kind = ExportKind.REVIEWS
    list_select_related = ("image", "reader", "prediction")
    sortable_by = ("created_at",)
    exclude = ("comment",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Review]:
        return (
            super()
            .get_queryset(request)
            .defer(
                "prediction__heat_map",
                "prediction__leukocytes",
                "prediction__probabilities",
                "prediction__conformal_set",
                "prediction__box",
            )
        )

    @admin.display(description="the model said")
    def model_said(self, review: Review) -> str:
        return str(review.prediction) if review.prediction else "-"

    @admin.display(description="its confidence")
    def confidence(self, review: Review) -> str:
        return f"{review.prediction.confidence:.3f}" if review.prediction else "-"

    @admin.display(description="counts now", boolean=True)
    def counts(self, review: Review) -> bool:
        return review.image.current_review_id == review.pk
