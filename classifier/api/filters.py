"""What lists can be narrowed by. A parameter that is not known is refused: a misspelt one would narrow nothing.

Accession numbers and pseudonyms are never parameters, for an address ends up in logs: they are searched for by POST.
"""

from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import BooleanField, CharField, OuterRef, Q, QuerySet, Subquery, When
from django.db.models import Case as WhenCase
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request

from accounts.models import User
from classifier.errors import InvalidInput
from classifier.few_rows import few, images_said_to_be
from classifier.models import Case, CaseStatus, CellImage, ImageStatus, Prediction
from classifier.querysets import CaseQuerySet, CellImageQuerySet
from classifier.worklist import ME, NOBODY
from ml.labels import CELL_TYPES

FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(9000, 1, 1)
PATIENT_TEXT = frozenset({"accession_number", "patient_pseudonym", "search", "q"})


class PageFilter(serializers.Serializer[Any]):
    """What every list takes."""

    page_size = serializers.IntegerField(
        required=False, min_value=1, help_text="Rows in a page: 50 unless told, 200 at most, also where more is asked."
    )
    cursor = serializers.CharField(required=False, help_text="Stands in `next` and `previous`; it is never made up.")


class ListFilter(PageFilter):
    """Base of the filters: reads the query string once, strictly."""

    @classmethod
    def of(cls, request: Request) -> dict[str, Any]:
        """The values that are given. Raises InvalidInput (unknown_filter, repeated_filter) and ValidationError."""
        given = request.query_params
        known = cls().fields
        for name, values in given.lists():
            if name not in known:
                hint = " Search for patient text by POST to /api/v1/cases/search/." if name in PATIENT_TEXT else ""
                message = f"This list has no filter {name[:40]!r}; it has {', '.join(sorted(known))}.{hint}"
                raise InvalidInput("unknown_filter", message)
            if len(values) > 1:
                raise InvalidInput("repeated_filter", f"The filter {name} is given more than once; give it once.")
        # A plain dictionary: from a form, a box that is not ticked would be False instead of not given.
        read = cls(data=given.dict())
        read.is_valid(raise_exception=True)
        return dict(read.validated_data)


class AssignedField(serializers.CharField):
    """`me`, `nobody`, or the id of somebody."""

    default_error_messages: ClassVar = {"invalid": "Give me, nobody, or the id of somebody of your laboratory."}

    def to_internal_value(self, data: Any) -> str:
        try:
            return data if data in (ME, NOBODY) else str(UUID(str(data)))
        except ValueError:
            self.fail("invalid")


class CaseFilter(ListFilter):
    status = serializers.ChoiceField(CaseStatus.choices, required=False)
    opened_from = serializers.DateField(required=False, help_text="The first day, in the server's time zone.")
    opened_to = serializers.DateField(required=False, help_text="The last day; it is included.")
    assigned = AssignedField(required=False, help_text="`me`, `nobody`, or somebody's id: see /api/v1/reviewers/.")

    def validate_opened_from(self, day: date) -> date:
        return plausible(day)

    def validate_opened_to(self, day: date) -> date:
        return plausible(day)


def plausible(day: date) -> date:
    if not FIRST_DAY <= day <= LAST_DAY:
        message = "Give a day from 1900-01-01 to 9000-01-01."
        raise serializers.ValidationError(message, code="out_of_range")
    return day


class ImageFilter(ListFilter):
    """`label` is what the image counts as: what a person said of it, or else what the model says."""

    status = serializers.ChoiceField(ImageStatus.choices, required=False)
    # `label` is also the name of an attribute of every field.
    label = serializers.ChoiceField(CELL_TYPES, required=False)  # type: ignore[assignment]
    abstained = serializers.BooleanField(required=False, help_text="Whether the newest prediction abstains.")


class AnyImageFilter(ImageFilter):
    case = serializers.UUIDField(required=False)
    batch = serializers.UUIDField(required=False)


def cases_by(user: User, given: dict[str, Any]) -> CaseQuerySet:
    """The cases that the user sees and that fit, void ones too."""
    cases = Case.objects.visible_to(user)
    if "status" in given:
        cases = cases.filter(status=given["status"])
    if "opened_from" in given:
        cases = cases.filter(opened_at__gte=midnight(given["opened_from"]))
    if "opened_to" in given:
        cases = cases.filter(opened_at__lt=midnight(given["opened_to"] + timedelta(days=1)))
    if "assigned" in given:
        whose = {ME: user.pk, NOBODY: None}
        cases = cases.filter(assigned_to=whose.get(given["assigned"], given["assigned"]))
    return cases


def midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def images_by(images: CellImageQuerySet, given: dict[str, Any], laboratory_id: UUID | None) -> QuerySet[CellImage]:
    """The laboratory's images that fit."""
    # Of a case, of a batch, and in any other state there are few.
    is_wide = not {"case", "batch"} & given.keys() and given.get("status", "reviewed") == "reviewed"
    if "status" in given:
        images = images.filter(status=given["status"])
    if "case" in given:
        images = images.filter(case=given["case"])
    if "batch" in given:
        images = images.filter(batch=given["batch"])
    if "label" in given:
        # Only of what nobody has reviewed is the newest prediction looked up.
        said = WhenCase(When(status=ImageStatus.CLASSIFIED, then=newest("label")), output_field=CharField())
        by_model, by_reader = Q(said=given["label"]), Q(current_review__final_label=given["label"])
        if is_wide:
            images = among(images_said_to_be(laboratory_id, given["label"]), images)
        images = images.alias(said=said).filter(by_reader | by_model)
    if "abstained" in given:
        if is_wide:
            of_that_kind = Prediction.objects.filter(laboratory=laboratory_id, abstained=given["abstained"])
            images = among(few(of_that_kind, "image"), images)
        images = images.alias(held_back=newest("abstained", BooleanField())).filter(held_back=given["abstained"])
    return images


def among(found: list[UUID] | None, images: CellImageQuerySet) -> CellImageQuerySet:
    """Only these are looked at, where they are few."""
    return images if found is None else images.filter(pk__in=found)


def newest(column: str, kind: Any = None) -> Subquery:
    """A column of the newest prediction of an image."""
    predictions = Prediction.objects.filter(image=OuterRef("pk")).order_by("-created_at", "-id")
    return Subquery(predictions.values(column)[:1], output_field=kind)
