"""Home: the bench, and the state of the queue."""

import uuid
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier.emergency import open_cases
from classifier.models import Case, CellImage
from classifier.readiness import queue_obstacle
from classifier.rereads import waiting_for

LATEST_ON_BENCH = 12
CASES_TO_CHOOSE = 20


@require_safe
@never_cache
def bench(request: SignedInRequest) -> HttpResponse:
    """Home: the drop zone, the state of the queue, and one's latest images."""
    latest = (
        CellImage.objects.visible_to(request.user)
        .with_predictions()
        .filter(uploaded_by=request.user)
        .newest_first()[:LATEST_ON_BENCH]
    )
    context = {
        "latest": latest,
        "quick_case_id": uuid.uuid4(),
        "open_cases": Case.objects.visible_to(request.user).order_by("-opened_at", "-id")[:CASES_TO_CHOOSE],
        "may_upload": request.user.may(Verb.UPLOAD),
        "rereads": waiting_for(request.user),
        "emergencies": open_cases(request.user),
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
