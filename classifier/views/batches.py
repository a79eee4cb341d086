"""Batches: handing one in, how far they are, what was refused, and the acts on one."""

import uuid
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.models import User
from accounts.roles import Verb
from classifier import services
from classifier.batches import RESULT_COLUMNS, progress_of, refusal_groups, refusals_of, result_rows
from classifier.csv_stream import streamed
from classifier.errors import HematoVisionError, UploadRejected
from classifier.models import Batch, BatchState, Case
from classifier.paging import html_page
from classifier.validation_report import validation_of

BATCHES_ON_PAGE = 25
REFUSED_COLUMNS = ("file", "code", "message")
ACTS: dict[str, tuple[Callable[..., Batch], str]] = {
    "start": (services.start_batch, "The batch is started."),
    "pause": (services.pause_batch, "The batch is paused. What a worker holds right now is still classified."),
    "resume": (services.resume_batch, "The batch goes on."),
    "cancel": (services.cancel_batch, "The batch is cancelled. What was classified stays."),
    "retry-failed": (services.retry_failed, "What had failed is tried again."),
}


def visible(user: User) -> QuerySet[Batch]:
    return Batch.objects.visible_to(user).select_related("case", "submitted_by")


@never_cache
def batch_list(request: SignedInRequest) -> HttpResponse:
    """The laboratory's batches, the newest first; POST hands one in, which is checked and then asks."""
    if request.method != "POST":
        return list_page(request)
    if not request.user.may(Verb.UPLOAD):
        raise PermissionDenied
    given = request.FILES.getlist("archive")
    try:
        if len(given) > 1:
            raise UploadRejected("one_file_a_request", "Hand in one archive after the other.")
        batch = services.submit_archive(
            actor=request.user,
            archive=given[0] if given else None,
            accession_number=request.POST.get("accession_number", ""),
            asks_before_start=True,
        )
    except HematoVisionError as error:
        return list_page(request, error)
    return redirect("batch", batch_id=batch.pk)


def list_page(request: SignedInRequest, error: HematoVisionError | None = None) -> HttpResponse:
    if error and "X-Fragment" in request.headers:
        return HttpResponse(error.message, status=error.status, content_type="text/plain")
    case = asked_for(request)
    batches = visible(request.user).filter(case=case) if case else visible(request.user)
    page = html_page(request, batches, BATCHES_ON_PAGE)
    progress = progress_of(page["rows"])
    context = {
        "case": case,
        "page": page,
        "rows": [(batch, progress[batch.pk]) for batch in page["rows"]],
        "moving": any(batch.state in (BatchState.CHECKING, BatchState.RUNNING) for batch in page["rows"]),
        "may_upload": request.user.may(Verb.UPLOAD),
        "error": error,
        "accession_number": request.POST.get("accession_number", case.accession_number if case else ""),
    }
    template = "classifier/_batch_table.html" if "X-Fragment" in request.headers else "classifier/batches.html"
    return render(request, template, context, status=error.status if error else 200)


def asked_for(request: SignedInRequest) -> Case | None:
    """The case whose batches alone are listed (`?case=`). Raises Http404."""
    if "case" not in request.GET:
        return None
    try:
        case_id = uuid.UUID(request.GET["case"])
    except ValueError as error:
        raise Http404 from error
    return get_object_or_404(Case.objects.visible_to(request.user), pk=case_id)


@require_safe
@never_cache
def batch_detail(request: SignedInRequest, batch_id: uuid.UUID) -> HttpResponse:
    """One batch. A script asks for the part that moves alone."""
    batch = get_object_or_404(visible(request.user), pk=batch_id)
    moves = batch.state == BatchState.RUNNING or (batch.state == BatchState.CHECKING and not batch.waits_for_start)
    context: dict[str, Any] = {
        "batch": batch,
        "progress": progress_of([batch])[batch.pk],
        "groups": refusal_groups(batch),
        "validation": validation_of(batch),
        "moving": moves,
        "may_act": request.user.may(Verb.UPLOAD),
    }
    template = "classifier/_batch_body.html" if "X-Fragment" in request.headers else "classifier/batch.html"
    return render(request, template, context)


def batch_act(request: SignedInRequest, batch_id: uuid.UUID, act: str) -> HttpResponse:
    """Start, pause, resume, cancel or retry; what can't be done now is said on the batch's page."""
    if request.method != "POST":
        return redirect("batch", batch_id=batch_id)
    batch = get_object_or_404(visible(request.user), pk=batch_id)
    if act not in ACTS:
        raise Http404
    if not request.user.may(Verb.UPLOAD):
        raise PermissionDenied
    service, done = ACTS[act]
    try:
        service(actor=request.user, batch=batch)
        messages.success(request, done)
    except HematoVisionError as error:
        messages.error(request, error.message)
    return redirect("batch", batch_id=batch.pk)


@require_safe
@never_cache
def batch_csv(request: SignedInRequest, batch_id: uuid.UUID, kind: str) -> StreamingHttpResponse:
    """`results`: a line a file; `refused`: those that became no image."""
    batch = get_object_or_404(visible(request.user), pk=batch_id)
    if kind not in ("results", "refused"):
        raise Http404
    services.record_batch_export(actor=request.user, batch=batch, kind=kind)
    lines = (
        streamed(RESULT_COLUMNS, result_rows(batch))
        if kind == "results"
        else streamed(REFUSED_COLUMNS, refusals_of(batch))
    )
    answer = StreamingHttpResponse(lines, content_type="text/csv")
    answer["Content-Disposition"] = f'attachment; filename="batch-{batch.pk}-{kind}.csv"'
    return answer
