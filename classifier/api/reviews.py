"""Reviews over the API: what people said about an image, and saying something."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.roles import Verb
from classifier import services
from classifier.api.filters import ListFilter
from classifier.api.serializers import KnownFields, ReviewSerializer
from classifier.api.views import acting, read
from classifier.models import CellImage, Review, Verdict
from classifier.paging import NewestFirst


class NewReviewSerializer(KnownFields):
    """What is said. `previous_review` given and out of date is refused with the other's review; null: there was none;
    left out, nothing is compared.
    """

    # Wrong values are the service's to refuse: it says what is known.
    verdict = serializers.CharField(help_text=f"One of {', '.join(Verdict.values)}.")
    final_label = serializers.CharField(
        required=False, allow_null=True, allow_blank=True, help_text="For CORRECTED and MANUAL: the cell type."
    )
    comment = serializers.CharField(required=False, allow_blank=True, max_length=1000)
    previous_review = serializers.UUIDField(required=False, allow_null=True)


class ReviewPages(NewestFirst):
    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        return ("-created_at", "-id")


class ImageReviews(ListAPIView[Review]):
    """What was said about an image, the newest first; POST says something."""

    serializer_class = ReviewSerializer
    queryset = Review.objects.all()
    pagination_class = ReviewPages
    verb = Verb.REVIEW

    def get_image(self) -> CellImage:
        images = CellImage.objects.visible_to(acting(self.request)).select_related("case")
        return get_object_or_404(images, pk=self.kwargs["image_id"])

    def get_queryset(self) -> QuerySet[Review]:
        ListFilter.of(self.request)
        return Review.objects.filter(image=self.get_image()).select_related("reader")

    @extend_schema(parameters=[ListFilter])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)

    @extend_schema(request=NewReviewSerializer, responses={201: ReviewSerializer})
    def post(self, request: Request, image_id: UUID) -> Response:
        """Review an image: it counts from now on. A case whose report is signed takes none."""
        image = self.get_image()
        fields = read(NewReviewSerializer, request)
        fields["final_label"] = fields.get("final_label") or ""
        review = services.review_image(actor=acting(request), image=image, **fields)
        return Response(review.as_dict(), status=201)
