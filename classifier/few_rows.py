"""What hardly any row fits, asked from its own side: an index leads to the few, where a list would be read to its end.

What is found here only narrows: each filter is asked of the rows as well, so more than what fits may be found, and
never less.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from classifier.models import Case, CellImage, Prediction, Review, Verdict, Void

# Beyond this a list meets enough of them on its way.
FEW = 1000
Keys = list[Any] | None
# Of a laboratory, for the value of a filter: a column, and what it holds wherever the filter fits; None: not few.
Among = Callable[[UUID | None, str], tuple[str, Keys]]


def few(rows: QuerySet[Any], column: str) -> Keys:
    """The values of the column, without repetition; None where there are more rows than a few."""
    # In the order of the lists, so that databases take the index that holds the columns of the filter.
    found = list(rows.values_list(column, flat=True)[: FEW + 1])
    return None if len(found) > FEW else list(set(found))


def together(*found: Keys) -> Keys:
    return None if None in found else list({key for keys in found for key in keys or ()})


def images_said_to_be(laboratory_id: UUID | None, label: str) -> Keys:
    """The images that a review or a prediction of the laboratory ever called so."""
    reviewed = few(Review.objects.filter(laboratory=laboratory_id, final_label=label), "image")
    if reviewed is None:
        return None
    return together(reviewed, few(Prediction.objects.filter(laboratory=laboratory_id, label=label), "image"))


def images_read_as(laboratory_id: UUID | None, label: str) -> tuple[str, Keys]:
    return "image", few(Review.objects.filter(laboratory=laboratory_id, final_label=label), "image")


def images_with_review_by(laboratory_id: UUID | None, reader: str) -> tuple[str, Keys]:
    return "image", few(Review.objects.filter(reader_id=UUID(reader)), "image")


def uploaded_by(laboratory_id: UUID | None, user: str) -> tuple[str, Keys]:
    return "pk", few(CellImage.objects.filter(uploaded_by_id=UUID(user)), "pk")


def images_uploaded_by(laboratory_id: UUID | None, user: str) -> tuple[str, Keys]:
    return "image", uploaded_by(laboratory_id, user)[1]


def predictions_called(laboratory_id: UUID | None, label: str) -> tuple[str, Keys]:
    said = "" if label == "unidentified" else label
    return "prediction", few(Prediction.objects.filter(laboratory=laboratory_id, label=said), "pk")


def predictions_by_reading(laboratory_id: UUID | None, reading: str) -> tuple[str, Keys]:
    said = {"unusable": Verdict.UNUSABLE, "overridden": Verdict.CORRECTED}
    if reading not in said:
        return "pk", None
    return "pk", few(Review.objects.filter(laboratory=laboratory_id, verdict=said[reading]), "prediction")


def reviews_by_reading(laboratory_id: UUID | None, reading: str) -> tuple[str, Keys]:
    return predictions_called(laboratory_id, "") if reading == "identified" else ("pk", None)


def void_images(laboratory_id: UUID | None, void: str, *, column: str) -> tuple[str, Keys]:
    """Of one image each, or of all images of a void case."""
    if void != "yes":
        return column, None
    own = Void.objects.filter(laboratory=laboratory_id, image__isnull=False)
    of_cases = CellImage.objects.filter(case__in=Case.objects.filter(laboratory=laboratory_id, status="void"))
    return column, together(few(own, "image"), few(of_cases, "pk"))


def no_longer_counting(laboratory_id: UUID | None, counts: str) -> tuple[str, Keys]:
    """A review counts from its writing on, but for a withdrawal, until a later one is written about its image."""
    if counts != "no":
        return "pk", None
    again = Review.objects.filter(laboratory=laboratory_id, previous__isnull=False)
    return "image", few(again, "image")
