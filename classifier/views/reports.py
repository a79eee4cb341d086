"""Reports: signing one, opening it again, its versions as pages, and the files that leave the system."""

import uuid
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.middleware import SignedInRequest
from classifier.errors import HematoVisionError
from classifier.models import Case
from classifier.reports.exports import KINDS, exported
from classifier.reports.forms import AmendForm, ReleaseForm
from classifier.reports.page import page_of
from classifier.reports.payload import draft_payload, shown_payload
from classifier.reports.standing import Standing
from classifier.reports.versions import ReportVersion, versions_of
from classifier.services.reports import (
    amend_report,
    draft_sha256,
    may_sign,
    record_export,
    record_view,
    release_report,
    signing_refusal,
)
from classifier.views.opened import note_emergency
from classifier.views.viewed import note_case_look

FIELD_OF_CODE = {
    "wrong_password": "password",
    "too_many_tries": "password",
    "comment_too_long": "comment",
    "reason_missing": "reason",
    "reason_too_long": "reason",
    "unknown_kind": "kind",
}


def visible_case(request: SignedInRequest, case_id: uuid.UUID) -> Case:
    cases = Case.objects.visible_to(request.user).select_related("laboratory", "void__by")
    return get_object_or_404(cases, pk=case_id)


def opened_case(request: SignedInRequest, case_id: uuid.UUID) -> Case:
    """The case, to read its reports: by emergency access as well."""
    cases = Case.objects.opened_to(request.user).select_related("laboratory", "void__by")
    return get_object_or_404(cases, pk=case_id)


def chosen(versions: list[ReportVersion], number: int) -> ReportVersion:
    found = next((version for version in versions if version.number == number), None)
    if found is None:
        raise Http404
    return found


@require_safe
@never_cache
def case_reports(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """The newest version; a case without one has nothing here."""
    versions = versions_of(opened_case(request, case_id))
    if not versions:
        raise Http404
    return redirect("report", case_id=case_id, version=versions[0].number)


@require_safe
@never_cache
def report(request: SignedInRequest, case_id: uuid.UUID, version: int) -> HttpResponse:
    """One version, what changed since the one before, and what it is worth now."""
    case = opened_case(request, case_id)
    versions = versions_of(case)
    shown = chosen(versions, version)
    is_emergency = note_emergency(request, case, shown.report)
    before = next((each for each in versions if each.number == version - 1), None)
    payload = shown_payload(shown.report)
    record_view(actor=request.user, report=shown.report)
    context = {
        "case": case,
        "versions": versions,
        "shown": shown,
        "before": before,
        "newest": versions[0],
        "payload": payload,
        "page": page_of(payload, shown.standing, before=shown_payload(before.report) if before else None),
        "is_whole": shown.report.is_whole,
        "may_release": may_sign(request.user) and not is_emergency,
        "only_pdf": is_emergency,
    }
    return render(request, "classifier/report.html", context)


@require_safe
@never_cache
def report_file(request: SignedInRequest, case_id: uuid.UUID, version: int, kind: str) -> HttpResponse:
    """A version as a download: pdf, fhir, json, csv or cells. Each time is in the audit trail."""
    if kind not in KINDS:
        raise Http404
    case = opened_case(request, case_id)
    shown = chosen(versions_of(case), version)
    if note_emergency(request, case, shown.report) and kind != "pdf":
        # Read by a person, it opens; the forms for other systems do not.
        raise PermissionDenied
    try:
        record_export(actor=request.user, report=shown.report, kind=kind)
    except HematoVisionError as error:
        messages.error(request, error.message)
        return redirect("report", case_id=case_id, version=version)
    file = exported(shown.report, shown.standing, kind)
    headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "no-store, private"}
    return HttpResponse(file.content, content_type=file.content_type, headers=headers)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def case_release(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """The form that signs: what would be frozen, what stands in the way, and the password."""
    case = visible_case(request, case_id)
    if not may_sign(request.user):
        raise PermissionDenied
    note_case_look(request, case)
    payload = draft_payload(case)
    versions = versions_of(case)
    amendment = versions[0].amendment if versions else None
    blockers: list[dict[str, Any]] = payload["differential"]["blocked_by"]
    refusal = signing_refusal(actor=request.user, case=case)
    obstacles = [blocker for blocker in blockers if blocker["code"] != "below_target_count"]
    form = ReleaseForm(
        request.POST or None,
        below_target=len(blockers) > len(obstacles),
        is_first=not versions,
        initial={"comment": versions[0].report.payload["report"]["comment"] if versions else ""},
    )
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            seen = request.POST.get("seen", "")
            signed = release_report(actor=request.user, case=case, seen=seen, **form.cleaned_data)
        except HematoVisionError as error:
            if error.code == "already_released":
                # A second click, or a colleague who was faster: what they need to see is the signed report.
                messages.info(request, error.message)
                return redirect("case-reports", case_id=case.pk)
            put_in_form(form, error)
            status = error.status
        else:
            messages.success(request, f"Version {signed.version} is signed.")
            return redirect("report", case_id=case.pk, version=signed.version)
    elif form.errors:
        status = 400
    context = {
        "case": case,
        "payload": payload,
        "page": page_of(payload, Standing.DRAFT),
        "blockers": blockers,
        "obstacles": obstacles,
        "amendment": amendment,
        "refusal": refusal,
        "can_sign": not refusal and not obstacles,
        "newest": versions[0] if versions else None,
        "seen": draft_sha256(payload),
        "form": form,
    }
    return render(request, "classifier/report_release.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def case_amend(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """The form that opens a signed case again."""
    case = visible_case(request, case_id)
    if not may_sign(request.user):
        raise PermissionDenied
    versions = versions_of(case)
    if not versions:
        raise Http404
    form = AmendForm(request.POST or None)
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            amend_report(actor=request.user, case=case, **form.cleaned_data)
        except HematoVisionError as error:
            put_in_form(form, error)
            status = error.status
        else:
            messages.success(request, "The case is open again. The old report stays in force until you sign the next.")
            return redirect("case", case_id=case.pk)
    elif form.errors:
        status = 400
    context = {"case": case, "newest": versions[0], "form": form, "can_amend": versions[0].standing == Standing.CURRENT}
    return render(request, "classifier/report_amend.html", context, status=status)


def put_in_form(form: ReleaseForm | AmendForm, error: HematoVisionError) -> None:
    """Show the refusal at the field that it is about, or above the form."""
    field = FIELD_OF_CODE.get(error.code)
    form.add_error(field if field in form.fields else None, error.message)
