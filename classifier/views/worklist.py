"""The worklist, and the search in it."""

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier.forms import SearchForm, WorklistForm
from classifier.models import Case, CaseStatus, ModelVersion
from classifier.paging import html_page
from classifier.search import cases_found
from classifier.views.posting import posted_from
from classifier.worklist import (
    UNREAD,
    WAITING,
    people_who_review,
    rows_of,
    status_counts,
    with_what_a_row_shows,
    worklist,
)

CASES_ON_PAGE = 25


@require_safe
@never_cache
def case_list(request: SignedInRequest) -> HttpResponse:
    """The cases of one's laboratory that fit the filters in the address; with filters that can't be, none."""
    user = request.user
    form = WorklistForm(
        request.GET,
        user=user,
        people=people_who_review(user.laboratory_id),
        models=ModelVersion.objects.all(),
    )
    cases, waiting = Case.objects.none(), False
    if form.is_valid():
        cases, waiting = with_what_a_row_shows(worklist(user, form.filter)), form.filter.order == WAITING
    page = html_page(request, cases, CASES_ON_PAGE, oldest_first=waiting)
    counts = status_counts(user)
    context = {
        "form": form,
        "page": page,
        "rows": rows_of(page["rows"]),
        "waiting_first": waiting,
        "counts": counts,
        "tabs": [(status, counts.by_status[status]) for status in CaseStatus if status != CaseStatus.VOID],
        "UNREAD": UNREAD,
        **about(request),
    }
    return render(request, "classifier/case_list.html", context, status=200 if form.is_valid() else 400)


@posted_from("cases")
def case_search(request: SignedInRequest) -> HttpResponse:
    """Search by POST: neither an accession number nor a pseudonym ever appears in an address.

    That very accession number opens at once; else every case that the text finds is listed, void ones too.
    """
    form = SearchForm(request.POST)
    found: list[Case] = []
    by: dict[UUID, str] = {}
    if form.is_valid():
        text, cases = form.cleaned_data["accession_number"], Case.objects.visible_to(request.user)
        case = cases.numbered(text).first()
        if case is not None:
            return redirect("case", case_id=case.pk)
        by = cases_found(request.user, text, CASES_ON_PAGE + 1)
        rows = with_what_a_row_shows(cases).in_bulk(list(by))
        found = [rows[pk] for pk in by if pk in rows]
    context = {
        "searched": True,
        "more": len(found) > CASES_ON_PAGE,
        "limit": CASES_ON_PAGE,
        "rows": rows_of(found[:CASES_ON_PAGE], by),
        **about(request) | {"search": form},
    }
    return render(request, "classifier/case_list.html", context, status=200 if form.is_valid() else 400)


def about(request: SignedInRequest) -> dict[str, Any]:
    """What stands at the head of list and search alike."""
    return {"search": SearchForm(), "may_upload": request.user.may(Verb.UPLOAD)}
