"""Cases: the list, the search, opening one, and its page."""

import uuid

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier import services
from classifier.errors import HematoVisionError
from classifier.forms import OpenCaseForm, SearchForm
from classifier.models import Case, CellImage
from classifier.paging import html_page
from classifier.views.bench import queue_context
from classifier.views.posting import posted_from

CASES_ON_PAGE = 25
IMAGES_ON_PAGE = 48
FIELD_OF_CODE = {
    "wbc_source_missing": "wbc_source",
    "collected_at_implausible": "collected_at",
    "accession_number_taken": "accession_number",
}


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
    images = CellImage.objects.visible_to(request.user).with_predictions().filter(case=case)
    context = {
        "case": case,
        "page": html_page(request, images, IMAGES_ON_PAGE),
        "may_upload": request.user.may(Verb.UPLOAD),
        **queue_context(),
    }
    return render(request, "classifier/case.html", context)
