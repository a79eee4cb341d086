"""A case: its gallery of cells, its differential and its history; and what has changed since a page was drawn."""

import uuid
from datetime import datetime
from typing import Any

from django.core.exceptions import BadRequest
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier.case_history import history_of
from classifier.case_transitions import SIGNED
from classifier.errors import InvalidInput
from classifier.gallery import FILTERS, Key, changes_since, cursor_of, gallery_of, keys_of, tiles_of
from classifier.laboratory_settings import settings_of
from classifier.models import Batch, Case, CaseStatus, CellImage, Report
from classifier.retention import with_keeping
from classifier.services.permission import may_in
from classifier.views.bench import queue_context
from classifier.views.differential import chosen_width, differential_context
from classifier.views.opened import note_emergency
from classifier.views.viewed import note_case_look

TILES_AT_ONCE = 100


@require_safe
@never_cache
def case_detail(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """The case. `?show=` keeps the tiles that block a release in one way, `?tray=` and `?page=` one tray alone.

    Times are those of the laboratory.
    """
    cases = Case.objects.opened_to(request.user).select_related("opened_by", "assigned_to", "void__by")
    case = get_object_or_404(with_keeping(cases, case_id), pk=case_id)
    note_emergency(request, case, case)
    note_case_look(request, case)
    # Taken first: what changes while the page is drawn is asked for again.
    moment = timezone.now()
    settings = settings_of(case.laboratory_id)
    with timezone.override(settings.time_zone):
        return render(request, "classifier/case.html", case_context(request, case, keys_of(settings), moment))


def case_context(request: SignedInRequest, case: Case, keys: list[Key], moment: datetime) -> dict[str, Any]:
    """What the page of the case shows, as it stands at `moment`."""
    show = request.GET.get("show", "")
    show = show if show in FILTERS else ""
    tray, page = request.GET.get("tray", ""), page_number(request.GET.get("page", ""))
    gallery = gallery_of(case, keys, show=show, tray=tray, page=page)
    reports = list(Report.objects.filter(case=case).defer("payload_json").select_related("signed_by", "amendment__by"))
    return {
        "case": case,
        "gallery": gallery,
        "keys": keys,
        "cursor": cursor_of(moment, gallery.failures),
        "show": show,
        "shows": FILTERS.get(show, ""),
        "tray": tray,
        "page": page,
        "batches": Batch.objects.visible_to(request.user).filter(case=case).count(),
        "report": reports[0] if reports else None,
        "is_being_amended": bool(reports) and hasattr(reports[0], "amendment"),
        "is_signed": case.status in SIGNED,
        "is_void": case.status == CaseStatus.VOID,
        "history": history_of(case, reports, gallery.voided),
        "may_upload": may_in(case, request.user, Verb.UPLOAD) and case.is_editable,
        "may_review": may_in(case, request.user, Verb.REVIEW) and case.is_editable,
        "may_release": may_in(case, request.user, Verb.RELEASE),
        "may_edit": may_in(case, request.user, Verb.UPLOAD),
        "may_hold": may_in(case, request.user, Verb.ADMINISTER),
        "viewer": request.user,
        **differential_context(case, request.user, width=chosen_width(request.GET)),
        **(queue_context() if gallery.waiting else {}),
    }


def page_number(text: str) -> int:
    return max(1, int(text)) if text.isascii() and text.isdecimal() and len(text) < 6 else 1


@require_safe
@never_cache
def case_changes(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """What has happened to the images of a case since a cursor: ids and versions, a few bytes each."""
    if "X-Fragment" not in request.headers:
        return redirect("case", case_id=case_id)
    case = get_object_or_404(Case.objects.opened_to(request.user), pk=case_id)
    try:
        changes = changes_since(case, request.GET.get("since", ""))
    except InvalidInput as error:
        return JsonResponse({"code": error.code, "message": error.message}, status=error.status)
    body: dict[str, Any] = {
        "cursor": changes.cursor,
        "case": {"status": case.status, "name": case.get_status_display()},
        "images": changes.versions,
    }
    if changes.too_many:
        body["too_many"] = True
    return JsonResponse(body)


@require_safe
@never_cache
def case_tiles(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """The tiles of those images of the case that `id` names."""
    case = get_object_or_404(Case.objects.opened_to(request.user), pk=case_id)
    try:
        wanted = [uuid.UUID(text) for text in request.GET.getlist("id")[:TILES_AT_ONCE]]
    except ValueError as error:
        raise BadRequest from error
    tiles = tiles_of(CellImage.objects.filter(case=case, pk__in=wanted))
    with timezone.override(settings_of(case.laboratory_id).time_zone):
        return render(request, "classifier/_tiles.html", {"tiles": tiles, "viewer": request.user})
