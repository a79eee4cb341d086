"""Reviewing an image, and taking one out that was entered in error: by a form, or one small request of a script."""

import uuid
from types import EllipsisType
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.utils import timezone

from accounts.middleware import SignedInRequest
from classifier import services
from classifier.errors import HematoVisionError, InvalidInput, NotAllowed
from classifier.gallery import tiles_of
from classifier.laboratory_settings import settings_of
from classifier.models import Case, CellImage, Review, Verdict
from classifier.views.posting import posted_from

SAID: dict[str, str] = {
    Verdict.CONFIRMED: "Confirmed.",
    Verdict.CORRECTED: "Stored: your class counts now.",
    Verdict.MANUAL: "Stored: your class counts now.",
    Verdict.UNUSABLE: "Stored: the image counts as unusable.",
    Verdict.WITHDRAWN: "Undone: what counted before counts again.",
}


@posted_from("image")
def image_review(request: SignedInRequest, image_id: uuid.UUID) -> HttpResponse:
    """What the user says about an image: `verdict`, or `final_label` alone, which says which verdict it is.

    `seen_label` is the model's class that the page shows: only that one is confirmed. A script (X-Fragment) gets JSON:
    the image's tile as it stands now and, in `review`, the one that counts by what was just said, which is what the
    next review of the same page follows; where it is refused, the one that counts, `code` and `message`.
    """
    images = CellImage.objects.visible_to(request.user).select_related("case", "current_review")
    image = get_object_or_404(images, pk=image_id)
    is_script = "X-Fragment" in request.headers
    try:
        review = review_as_said(request, image)
    except HematoVisionError as error:
        if is_script:
            return tile_answer(request, image, error)
        if isinstance(error, NotAllowed):
            raise PermissionDenied from error
        messages.error(request, error.message)
    else:
        if is_script:
            return tile_answer(request, image, review)
        messages.success(request, SAID[review.verdict])
    return redirect("image", image_id=image.pk)


def review_as_said(request: SignedInRequest, image: CellImage) -> Review:
    said = request.POST
    final_label = said.get("final_label", "")
    if said.get("verdict") == Verdict.CONFIRMED:
        final_label = final_label or said.get("seen_label", "")
    return services.review_image(
        actor=request.user,
        image=image,
        verdict=said.get("verdict") or verdict_of(image, final_label),
        final_label=final_label,
        comment=said.get("comment", ""),
        previous_review=previous_review(said.get("previous_review")),
    )


def verdict_of(image: CellImage, final_label: str) -> Verdict:
    """What it means to say that class: the model's own confirms it, any other corrects it, a failed image is read."""
    if not final_label:
        raise InvalidInput("final_label_missing", "Say what the cell is.")
    if image.failure_code or (image.current_review and image.current_review.failure_code):
        return Verdict.MANUAL
    prediction = image.latest_prediction
    return Verdict.CONFIRMED if prediction and prediction.label == final_label else Verdict.CORRECTED


def previous_review(given: str | None) -> uuid.UUID | EllipsisType | None:
    """Left out: nothing is compared. Empty: there was none."""
    if given is None:
        return ...
    try:
        return uuid.UUID(given) if given else None
    except ValueError as error:
        raise InvalidInput("bad_previous_review", "This page is out of date. Load it again.") from error


def counts_after(review: Review) -> uuid.UUID | None:
    """The review that counts by what this one says, whatever others have said since."""
    if review.verdict != Verdict.WITHDRAWN:
        return review.pk
    return review.previous.previous_id if review.previous else None


def tile_answer(request: SignedInRequest, image: CellImage, outcome: Review | HematoVisionError) -> HttpResponse:
    """The tile as it stands now, whatever came of the request."""
    (tile,) = tiles_of(CellImage.objects.filter(pk=image.pk))
    case = Case.objects.get(pk=image.case_id)
    with timezone.override(settings_of(case.laboratory_id).time_zone):
        drawn = render_to_string("classifier/_tile.html", {"tile": tile, "viewer": request.user})
    counts = counts_after(outcome) if isinstance(outcome, Review) else tile.review_id
    body: dict[str, Any] = {
        "review": str(counts) if counts else None,
        "case": {"status": case.status, "name": case.get_status_display()},
        "tile": drawn,
    }
    if isinstance(outcome, Review):
        return JsonResponse(body)
    return JsonResponse(body | {"code": outcome.code, "message": outcome.message}, status=outcome.status)


@posted_from("image")
def image_void(request: SignedInRequest, image_id: uuid.UUID) -> HttpResponse:
    """Take an image out that was entered in error, with a reason."""
    image = get_object_or_404(CellImage.objects.visible_to(request.user).select_related("case"), pk=image_id)
    try:
        services.void_image(actor=request.user, image=image, reason=request.POST.get("reason", ""))
    except NotAllowed as error:
        raise PermissionDenied from error
    except HematoVisionError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "The image is void. It counts nowhere and stays readable.")
    return redirect("image", image_id=image.pk)
