"""Images: the history, one image's page, its bytes and its heat map."""

import uuid
from dataclasses import dataclass

from django.contrib import messages
from django.db.models import Q
from django.http import FileResponse, Http404, HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.http import parse_etags
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_safe

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier import heat_map, services, thumbnails
from classifier.cell_types import CELL_TYPE_TEXTS
from classifier.errors import Gone, HematoVisionError
from classifier.found_cells import caption_size, found_cells
from classifier.gallery import keys_of
from classifier.laboratory_settings import settings_of
from classifier.models import CellImage, Prediction
from classifier.paging import html_page
from classifier.querysets import CellImageQuerySet
from classifier.retention import require_kept
from classifier.services.permission import may_in
from classifier.views.bench import queue_context
from classifier.views.opened import note_emergency
from classifier.views.posting import posted_from
from classifier.views.viewed import note_image_look, note_picture_look
from ml.labels import display_name

IMAGES_ON_PAGE = 48
CARDS_AT_ONCE = 40
TYPES = {"jpg": "image/jpeg", "png": "image/png"}


def images_of(request: SignedInRequest) -> CellImageQuerySet:
    return with_all_that_is_shown(CellImage.objects.visible_to(request.user))


def with_all_that_is_shown(images: CellImageQuerySet) -> CellImageQuerySet:
    return images.with_predictions().select_related("void__by", "removed_picture")


@require_safe
@never_cache
def image_list(request: SignedInRequest) -> HttpResponse:
    """The history: all images of the laboratory, the newest first."""
    page = html_page(request, images_of(request), IMAGES_ON_PAGE)
    context = {"page": page, "may_upload": request.user.may(Verb.UPLOAD), **queue_context()}
    return render(request, "classifier/image_list.html", context)


@require_safe
@never_cache
def image_detail(request: SignedInRequest, image_id: uuid.UUID) -> HttpResponse:
    """One image: what the model and people say about it. A script gets the panel alone, `side` a closer one."""
    image = get_object_or_404(with_all_that_is_shown(CellImage.objects.opened_to(request.user)), pk=image_id)
    note_emergency(request, image.case, image)
    note_image_look(request, image)
    fragment = request.headers.get("X-Fragment")
    prediction = image.latest_prediction
    settings = settings_of(image.case.laboratory_id)
    context = {
        "image": image,
        "prediction": prediction,
        "cell_type": CELL_TYPE_TEXTS.get(prediction.label or prediction.suggestion) if prediction else None,
        "bars": bars_of(prediction) if prediction else [],
        "found_cells": found_cells(prediction, image.width, image.height) if prediction else [],
        "caption_size": caption_size(image.width, image.height),
        "elsewhere": CellImage.objects.visible_to(request.user).same_picture_elsewhere(image).select_related("case"),
        "review": image.current_review,
        "reviews": image.reviews.select_related("reader"),
        "keys": keys_of(settings),
        "may_upload": may_in(image.case, request.user, Verb.UPLOAD) and image.case.is_editable and not image.is_void,
        "may_review": may_in(image.case, request.user, Verb.REVIEW) and image.case.is_editable and not image.is_void,
        "may_void": may_in(image.case, request.user, Verb.RELEASE) and image.case.is_editable and not image.is_void,
        "is_side": fragment == "side",
        **({} if fragment else neighbours_of(image)),
        **(queue_context() if image.is_waiting else {}),
    }
    with timezone.override(settings.time_zone):
        return render(request, "classifier/_image_panel.html" if fragment else "classifier/image.html", context)


def neighbours_of(image: CellImage) -> dict[str, CellImage | None]:
    """The images of the case before and after it, in the order in which they came."""
    others = CellImage.objects.filter(case=image.case_id).only("pk")
    same_moment = Q(uploaded_at=image.uploaded_at)
    before = Q(uploaded_at__lt=image.uploaded_at) | same_moment & Q(pk__lt=image.pk)
    after = Q(uploaded_at__gt=image.uploaded_at) | same_moment & Q(pk__gt=image.pk)
    return {
        "previous": others.filter(before).order_by("-uploaded_at", "-pk").first(),
        "next": others.filter(after).order_by("uploaded_at", "pk").first(),
    }


@dataclass(frozen=True)
class Bar:
    """One class in the chart of all probabilities."""

    slug: str
    probability: float
    in_set: bool
    is_top: bool

    @property
    def name(self) -> str:
        return display_name(self.slug)

    @property
    def percent(self) -> float:
        return round(100 * self.probability, 1)


def bars_of(prediction: Prediction) -> list[Bar]:
    ranked = prediction.ranked_probabilities
    return [
        Bar(slug, probability, slug in prediction.conformal_set, place == 0)
        for place, (slug, probability) in enumerate(ranked)
    ]


@require_GET
@never_cache
def image_cards(request: SignedInRequest) -> HttpResponse:
    """The cards of the images named by `id`, for a page that waits for them. What is not visible is left out."""
    try:
        wanted = [uuid.UUID(text) for text in request.GET.getlist("id")[:CARDS_AT_ONCE]]
    except ValueError as error:
        raise Http404 from error
    context = {"images": images_of(request).filter(pk__in=wanted), "may_upload": request.user.may(Verb.UPLOAD)}
    return render(request, "classifier/_cards.html", context)


@require_safe
def image_file(request: SignedInRequest, image_id: uuid.UUID) -> HttpResponse | FileResponse:
    """The picture's bytes, to those who may see it and to no cache."""
    images = CellImage.objects.opened_to(request.user).select_related("case", "removed_picture")
    image = get_object_or_404(images, pk=image_id)
    note_emergency(request, image.case, image)
    answer = picture_of(image)
    if answer.status_code == 200:
        note_picture_look(request, image)
    return answer


def picture_of(image: CellImage) -> HttpResponse | FileResponse:
    """The stored bytes, for no cache; who asks must have been checked. Raises Http404.

    In the place of a picture that a retention rule has removed stands one that says so, as 410.
    """
    try:
        require_kept(image)
    except Gone as error:
        context = {"sentence": error.message, "day": error.details["day"]}
        drawn = render_to_string("classifier/picture_removed.svg", context)
        headers = {"Cache-Control": "no-store, private", "X-Content-Type-Options": "nosniff"}
        return HttpResponse(drawn, content_type="image/svg+xml", status=error.status, headers=headers)
    try:
        stored = image.file.open("rb")
    except FileNotFoundError as error:
        raise Http404 from error
    extension = str(image.file.name).rsplit(".", 1)[-1]
    response = FileResponse(stored, content_type=TYPES[extension], filename=f"{image.pk}.{extension}")
    response["Cache-Control"] = "no-store, private"
    response["X-Content-Type-Options"] = "nosniff"
    return response


@require_safe
def image_thumbnail(request: SignedInRequest, image_id: uuid.UUID) -> HttpResponseBase:
    """The thumbnail, which a browser keeps and asks about each time it shows it: who may see it may change."""
    drawn = CellImage.objects.opened_to(request.user).filter(has_thumbnail=True)
    image = get_object_or_404(drawn.only("file", "stored_sha256", "classified_at"), pk=image_id)
    headers = {
        "Cache-Control": "private, no-cache",
        "ETag": thumbnails.etag_of(image),
        "X-Content-Type-Options": "nosniff",
    }
    known = parse_etags(request.headers.get("If-None-Match", ""))
    if any(each.removeprefix("W/") == headers["ETag"] for each in known):
        return HttpResponseNotModified(headers=headers)
    try:
        stored, content_type = thumbnails.opened(image)
    except FileNotFoundError as error:
        raise Http404 from error
    return FileResponse(stored, content_type=content_type, headers=headers)


@require_safe
def image_heat_map(request: SignedInRequest, image_id: uuid.UUID) -> HttpResponse:
    """The heat map of the latest prediction as a transparent PNG of the picture's shape."""
    image = get_object_or_404(CellImage.objects.opened_to(request.user).with_predictions(), pk=image_id)
    prediction = image.latest_prediction
    if prediction is None or not prediction.heat_map:
        raise Http404
    png = heat_map.draw(prediction.heat_map, box=prediction.box, width=image.width, height=image.height)
    return HttpResponse(png, content_type="image/png", headers={"Cache-Control": "private, no-store"})


@posted_from("image")
def image_requeue(request: SignedInRequest, image_id: uuid.UUID) -> HttpResponse:
    image = get_object_or_404(CellImage.objects.visible_to(request.user).select_related("case"), pk=image_id)
    try:
        services.requeue_image(actor=request.user, image=image)
    except HematoVisionError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "The image is queued again.")
    return redirect("image", image_id=image.pk)
