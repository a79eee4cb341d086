"""Exports: asking for one, how far each is, and fetching the file."""

import uuid

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier import services
from classifier.desk_filters import in_words
from classifier.errors import HematoVisionError
from classifier.exports import exports_of, link_key, opens, progress_of
from classifier.models import Export, ExportState
from classifier.paging import html_page

EXPORTS_ON_PAGE = 25
LINK_OVER = "The link to this file is over: each lasts for ten minutes, for one person. Use the one below."
NOT_READY = "This export has no file: it is not finished, or its file was removed."


def require_auditor(request: SignedInRequest) -> None:
    if not request.user.may(Verb.AUDIT):
        raise PermissionDenied


@never_cache
def export_list(request: SignedInRequest) -> HttpResponse:
    """The laboratory's exports, the newest first; POST asks for one, with the filters of the list it came from."""
    require_auditor(request)
    if request.method == "POST":
        return ask(request)
    return list_page(request)


def list_page(request: SignedInRequest, status: int = 200) -> HttpResponse:
    page = html_page(request, exports_of(request.user), EXPORTS_ON_PAGE)
    rows = [
        {
            "export": export,
            "progress": progress_of(export),
            "filters": in_words(export.kind, export.filters),
            "key": link_key(export, request.user) if export.state == ExportState.READY else "",
        }
        for export in page["rows"]
    ]
    moving = any(row["export"].finished_at is None for row in rows)
    template = "classifier/_export_table.html" if "X-Fragment" in request.headers else "classifier/exports.html"
    return render(request, template, {"page": page, "rows": rows, "moving": moving}, status=status)


def ask(request: SignedInRequest) -> HttpResponse:
    posted = {name: request.POST.getlist(name) for name in request.POST}
    kind = request.POST.get("export_kind", "")
    filters = {name: values for name, values in posted.items() if name not in ("export_kind", "csrfmiddlewaretoken")}
    try:
        services.request_export(actor=request.user, kind=kind, filters=filters)
        messages.success(request, "The export is being written. It stands here when it is ready.")
    except HematoVisionError as error:
        messages.error(request, error.message)
    return redirect("exports")


@never_cache
def export_withdraw(request: SignedInRequest, export_id: uuid.UUID) -> HttpResponse:
    """Take back what is not finished. Who comes by a link finds it in the list."""
    require_auditor(request)
    export = get_object_or_404(exports_of(request.user), pk=export_id)
    if request.method != "POST":
        return redirect("exports")
    try:
        services.withdraw_export(actor=request.user, export=export)
        messages.success(request, "The export is withdrawn.")
    except HematoVisionError as error:
        messages.error(request, error.message)
    return redirect("exports")


@require_safe
@never_cache
def export_file(request: SignedInRequest, export_id: uuid.UUID) -> HttpResponse | FileResponse:
    """The file, to those who hold a link that was made for them within the last ten minutes."""
    require_auditor(request)
    export: Export = get_object_or_404(exports_of(request.user), pk=export_id)
    if not opens(request.GET.get("key", ""), export, request.user):
        messages.warning(request, LINK_OVER)
        return list_page(request, status=403)
    try:
        file = export.file.open("rb") if export.file else None
    except FileNotFoundError:
        file = None
    if file is None or export.state != ExportState.READY:
        messages.error(request, NOT_READY)
        return list_page(request, status=404)
    if request.method == "GET":
        services.record_export_download(actor=request.user, export=export)
    extension = str(export.file.name).rsplit(".", 1)[-1]
    name = f"{export.kind.replace('_', '-')}-{export.requested_at:%Y-%m-%d}-{str(export.pk)[:8]}.{extension}"
    answer = FileResponse(
        file, as_attachment=True, filename=name, content_type="text/csv" if extension == "csv" else "application/zip"
    )
    answer["Cache-Control"] = "private, no-store"
    answer["X-Content-Type-Options"] = "nosniff"
    return answer
