"""The pages. Each view reads by `visible_to`, acts by a service, and shows."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_safe

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier import heat_map, services
from classifier.cell_types import CELL_TYPE_TEXTS
from classifier.errors import HematoVisionError
from classifier.forms import OpenCaseForm, SearchForm
from classifier.found_cells import caption_size, found_cells
from classifier.models import Case, CellImage, Prediction
from classifier.paging import html_page
from classifier.querysets import CellImageQuerySet
from classifier.readiness import queue_obstacle
from ml.labels import display_name

CASES_ON_PAGE = 25
IMAGES_ON_PAGE = 48
LATEST_ON_BENCH = 12
CASES_TO_CHOOSE = 20
CARDS_AT_ONCE = 40
FIELD_OF_CODE = {
    "wbc_source_missing": "wbc_source",
    "collected_at_implausible": "collected_at",
    "accession_number_taken": "accession_number",
}
View = Callable[..., HttpResponse]
TYPES = {"jpg": "image/jpeg", "png": "image/png"}


def images_of(request: SignedInRequest) -> CellImageQuerySet:
    return CellImage.objects.visible_to(request.user).with_predictions()


def posted_from(page: str) -> Callable[[View], View]:
    """A view for forms of `page`. Who comes by a link, after signing in again say, is sent to that page instead."""

    def decorate(view: View) -> View:
        @wraps(view)
        def answer(request: SignedInRequest, **about: Any) -> HttpResponse:
            return view(request, **about) if request.method == "POST" else redirect(page, **about)

        return answer

    return decorate


@require_safe
@never_cache
def bench(request: SignedInRequest) -> HttpResponse:
    """Home: the drop zone, the state of the queue, and one's latest images."""
    latest = images_of(request).filter(uploaded_by=request.user).newest_first()[:LATEST_ON_BENCH]
    context = {
        "latest": latest,
        "quick_case_id": uuid.uuid4(),
        "open_cases": Case.objects.visible_to(request.user).order_by("-opened_at", "-id")[:CASES_TO_CHOOSE],
        "may_upload": request.user.may(Verb.UPLOAD),
        **queue_context(),
    }
    return render(request, "classifier/bench.html", context)


def queue_context() -> dict[str, Any]:
    return {"queue": CellImage.objects.queue_state(), "obstacle": queue_obstacle()}


@require_safe
@never_cache
def queue_line(request: SignedInRequest) -> HttpResponse:
    """How many wait, for how long, how fast it goes, and what stands in the way."""
    return render(request, "classifier/_queue_line.html", queue_context())


@require_safe
@never_cache
def case_list(request: SignedInRequest) -> HttpResponse:
    cases = Case.objects.visible_to(request.user).with_counts().select_related("opened_by")
    context = {
        "page": html_page(request, cases, CASES_ON_PAGE),
        "search": SearchForm(),
        "may_upload": request.user.may(Verb.UPLOAD),
    }
    return render(request, "classifier/case_list.html", context)


@posted_from("cases")
def case_search(request: SignedInRequest) -> HttpResponse:
    """Search by POST: an accession number never appears in a URL. An exact match opens at once."""
    form = SearchForm(request.POST)
    found: list[Case] = []
    if form.is_valid():
        text = form.cleaned_data["accession_number"].strip()
        visible = Case.objects.visible_to(request.user)
        found = list(visible.matching(text).with_counts().select_related("opened_by")[:CASES_ON_PAGE])
        exact = [case for case in found if case.accession_number.casefold() == text.casefold()]
        if len(exact) == 1:
            return redirect("case", case_id=exact[0].pk)
    context = {
        "page": {"rows": found, "older": None, "newer": None},
        "search": form,
        "searched": True,
        "limit": CASES_ON_PAGE,
        "may_upload": request.user.may(Verb.UPLOAD),
    }
    return render(request, "classifier/case_list.html", context)


def case_open(request: SignedInRequest) -> HttpResponse:
    if not request.user.may(Verb.UPLOAD):
        raise PermissionDenied
    form = OpenCaseForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            case = services.open_case(actor=request.user, **form.cleaned_data)
        except HematoVisionError as error:
            form.add_error(FIELD_OF_CODE.get(error.code), error.message)
        else:
            return redirect("case", case_id=case.pk)
    status = 400 if form.errors else 200
    return render(request, "classifier/case_open.html", {"form": form}, status=status)


@require_safe
@never_cache
def case_detail(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    case = get_object_or_404(Case.objects.visible_to(request.user).with_counts(), pk=case_id)
    images = images_of(request).filter(case=case)
    context = {
        "case": case,
        "page": html_page(request, images, IMAGES_ON_PAGE),
        "may_upload": request.user.may(Verb.UPLOAD),
        **queue_context(),
    }
    return render(request, "classifier/case.html", context)


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
    image = get_object_or_404(images_of(request), pk=image_id)
    template = "classifier/_image_panel.html" if "X-Fragment" in request.headers else "classifier/image.html"
    prediction = image.latest_prediction
    context = {
        "image": image,
        "prediction": prediction,
        "cell_type": CELL_TYPE_TEXTS.get(prediction.label or prediction.suggestion) if prediction else None,
        "bars": bars_of(prediction) if prediction else [],
        "found_cells": found_cells(prediction, image.width, image.height) if prediction else [],
        "caption_size": caption_size(image.width, image.height),
        "elsewhere": CellImage.objects.visible_to(request.user).same_picture_elsewhere(image).select_related("case"),
        "may_upload": request.user.may(Verb.UPLOAD),
        **(queue_context() if image.is_waiting else {}),
    }
    return render(request, template, context)


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
def image_file(request: SignedInRequest, image_id: uuid.UUID) -> FileResponse:
    """The picture's bytes, to those who may see it and to no cache."""
    image = get_object_or_404(CellImage.objects.visible_to(request.user), pk=image_id)
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
def image_heat_map(request: SignedInRequest, image_id: uuid.UUID) -> HttpResponse:
    """The heat map of the latest prediction as a transparent PNG of the picture's shape."""
    image = get_object_or_404(images_of(request), pk=image_id)
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


@posted_from("home")
def upload_to_bench(request: SignedInRequest) -> HttpResponse:
    """Pictures dropped on the bench go to a quick case, one a drop, that the first accepted picture opens."""
    try:
        case_id = uuid.UUID(request.POST.get("quick_case_id", ""))
    except ValueError:
        case_id = uuid.uuid4()

    def add(upload: UploadedFile) -> tuple[CellImage, bool]:
        return services.add_image_to_quick_case(actor=request.user, case_id=case_id, upload=upload)

    return answer_uploads(request, add, back=reverse("home"))


@posted_from("case")
def upload_to_case(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    case = get_object_or_404(Case.objects.visible_to(request.user), pk=case_id)

    def add(upload: UploadedFile) -> tuple[CellImage, bool]:
        return services.add_image(actor=request.user, case=case, upload=upload)

    return answer_uploads(request, add, back=reverse("case", args=[case.pk]))


def answer_uploads(request: HttpRequest, add: Any, *, back: str) -> HttpResponse:
    """Every file has its own outcome: one that is refused leaves the others alone.

    A script sends one file and gets its card or its refusal; a plain form sends many and gets a page of outcomes.
    """
    outcomes = [outcome_of(add, upload) for upload in request.FILES.getlist("file")]
    if not outcomes:
        outcomes = [{"name": "", "code": "no_file", "message": "No file was chosen. Choose one picture or more."}]
    status = max(outcome.get("status", 400) for outcome in outcomes)
    if "X-Fragment" in request.headers:
        return render(
            request, "classifier/_upload_outcome.html", {"outcome": outcomes[0], "may_upload": True}, status=status
        )
    accepted = [outcome for outcome in outcomes if "image" in outcome]
    context = {"outcomes": outcomes, "accepted": len(accepted), "back": back}
    return render(request, "classifier/upload_outcomes.html", context, status=202 if accepted else status)


def outcome_of(add: Any, upload: UploadedFile) -> dict[str, Any]:
    try:
        image, created = add(upload)
    except HematoVisionError as error:
        return {"name": upload.name, "code": error.code, "message": error.message, "status": error.status}
    return {"name": upload.name, "image": image, "created": created, "status": 202 if created else 200}
