"""The forms about one case: opening, changing, assigning and voiding it."""

import uuid

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.forms import Form
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier import services
from classifier.errors import HematoVisionError
from classifier.forms import AssignCaseForm, ChangeCaseForm, OpenCaseForm, VoidCaseForm
from classifier.models import Case, CaseStatus
from classifier.views.viewed import note_case_look
from classifier.worklist import people_who_review

FIELD_OF_CODE = {
    "wbc_source_missing": "wbc_source",
    "collected_at_implausible": "collected_at",
    "accession_number_taken": "accession_number",
    "not_assignable": "reader",
    "reason_missing": "reason",
}


def case_open(request: SignedInRequest) -> HttpResponse:
    if not request.user.may(Verb.UPLOAD):
        raise PermissionDenied
    form = OpenCaseForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            case = services.open_case(actor=request.user, **form.cleaned_data)
        except HematoVisionError as error:
            refuse(form, error)
        else:
            return redirect("case", case_id=case.pk)
    status = 400 if form.errors else 200
    return render(request, "classifier/case_open.html", {"form": form}, status=status)


@never_cache
def case_edit(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """Pseudonym, specimen, time of collection and WBC of a case that is not signed."""
    case = case_for(request, case_id, Verb.UPLOAD)
    form = ChangeCaseForm(request.POST if request.method == "POST" else None, case=case)
    if form.is_valid():
        try:
            services.change_case(actor=request.user, case=case, **form.changes)
        except HematoVisionError as error:
            refuse(form, error)
        else:
            return redirect("case", case_id=case.pk)
    return answer(request, "classifier/case_edit.html", case, form)


@never_cache
def case_assign(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """To whom of the laboratory the case is given."""
    case = case_for(request, case_id, Verb.UPLOAD)
    people = [person for person in people_who_review(case.laboratory_id) if person.is_active]
    data = request.POST if request.method == "POST" else None
    form = AssignCaseForm(data, people=people, case=case, user=request.user)
    if form.is_valid():
        try:
            services.assign_case(actor=request.user, case=case, reader=form.chosen)
        except HematoVisionError as error:
            refuse(form, error)
        else:
            messages.success(request, f"The case is assigned to {form.chosen or 'nobody'}.")
            return redirect("case", case_id=case.pk)
    return answer(request, "classifier/case_assign.html", case, form)


@never_cache
def case_void(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """Takes a case that was entered in error out of everything that counts, with a reason."""
    case = case_for(request, case_id, Verb.RELEASE)
    form = VoidCaseForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            services.void_case(actor=request.user, case=case, reason=form.cleaned_data["reason"])
        except HematoVisionError as error:
            refuse(form, error)
        else:
            messages.success(request, "The case is void. It stays readable and counts nowhere.")
            return redirect("case", case_id=case.pk)
    return answer(request, "classifier/case_void.html", case, form)


def case_for(request: SignedInRequest, case_id: uuid.UUID, verb: Verb) -> Case:
    """The case, if the user sees it (else 404) and has the verb (else 403)."""
    case = get_object_or_404(Case.objects.visible_to(request.user), pk=case_id)
    if not request.user.may(verb):
        raise PermissionDenied
    note_case_look(request, case)
    return case


def refuse(form: Form, error: HematoVisionError) -> None:
    """Put the sentence beside the field that it is about, or above the form."""
    field = FIELD_OF_CODE.get(error.code)
    form.add_error(field if field in form.fields else None, error.message)


def answer(request: SignedInRequest, template: str, case: Case, form: Form) -> HttpResponse:
    context = {"case": case, "form": form, "is_void": case.status == CaseStatus.VOID}
    return render(request, template, context, status=400 if form.errors else 200)
