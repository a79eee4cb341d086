"""The pages of the models: which there are, what each knows and does not, and what this product is."""

import uuid
from typing import Any

from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from classifier.active_model import bundle_of
from classifier.data_set_pictures import picture_path, thumbnail
from classifier.model_page import (
    axis_of,
    data_sets_of,
    gate_rows,
    listed_mistake,
    measured_sets,
    recipe_rows,
    shown_model,
    split_rows,
    weakest_points,
)
from classifier.models import ModelVersion


@require_safe
@never_cache
def model_list(request: HttpRequest) -> HttpResponse:
    """All registered versions, the active one first. They belong to the platform: whoever is signed in sees all."""
    versions = ModelVersion.objects.order_by("-active", "-registered_at")
    return render(request, "classifier/model_list.html", {"versions": versions})


@require_safe
@never_cache
def model_detail(request: HttpRequest, version_id: uuid.UUID) -> HttpResponse:
    """The model card, drawn: limits first."""
    shown = shown_model(get_object_or_404(ModelVersion, pk=version_id))
    data_sets = data_sets_of(shown)
    context: dict[str, Any] = {
        "model": shown,
        "version": shown.version,
        "card": shown.card,
        "data_sets": data_sets,
        "axis": axis_of(data_sets),
        "weakest": weakest_points(data_sets),
        "gate": gate_rows(shown),
        "split": split_rows(shown),
        "recipe": recipe_rows(shown),
    }
    return render(request, "classifier/model.html", context)


@require_safe
def model_manifest(request: HttpRequest, version_id: uuid.UUID) -> FileResponse:
    """The list of the pictures that the model was trained, calibrated and tested with."""
    shown = shown_model(get_object_or_404(ModelVersion, pk=version_id))
    if shown.manifest is None:
        raise Http404
    file = (bundle_of(shown.version) / shown.manifest).open("rb")
    name = f"{shown.version.bundle_name}-{shown.manifest}"
    return FileResponse(file, content_type="application/gzip", as_attachment=True, filename=name)


@require_safe
def model_mistake(request: HttpRequest, version_id: uuid.UUID, data_set: str, number: int) -> HttpResponse:
    """A small picture of a mistake that the card lists. Nothing else of the data folder can be asked for."""
    relative = listed_mistake(shown_model(get_object_or_404(ModelVersion, pk=version_id)), data_set, number)
    path = picture_path(relative) if relative else None
    content = thumbnail(path) if path else None
    if content is None:
        raise Http404
    headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return HttpResponse(content, content_type="image/jpeg", headers=headers)


def about(request: HttpRequest) -> HttpResponse:
    """What this is and is not; open to everybody."""
    active = ModelVersion.objects.filter(active=True).first()
    shown = shown_model(active) if active else None
    return render(request, "about.html", {"model": shown, "metrics": measured_sets(shown) if shown else {}})
