"""Blind re-reads: the list with the draw, the page that shows one cell and nothing else, and what came of it."""

import uuid
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.middleware import SignedInRequest
from accounts.models import User
from accounts.roles import Verb
from classifier import services
from classifier.errors import HematoVisionError
from classifier.gallery import keys_of
from classifier.laboratory_settings import settings_of
from classifier.models import BlindReread, RereadCell
from classifier.paging import html_page
from classifier.reread_statistics import result_of
from classifier.rereads import cells_left, own_count, progress_of, read_twice, rereads_for, still_there, with_counts
from classifier.services.rereads import MOST_CELLS, record_picture
from classifier.views.images import picture_of
from classifier.views.posting import posted_from
from classifier.worklist import people_who_review

REREADS_ON_PAGE = 50
FIELD_OF_CODE = {
    "reader_not_possible": "reader",
    "size_out_of_range": "size",
    "size_or_share": "size",
    "share_out_of_range": "share_percent",
}
UNUSABLE = "unusable"


class DrawForm(forms.Form):
    """Whose re-read it is, how many cells, and from which days."""

    reader = forms.ChoiceField(error_messages={"invalid_choice": "Choose somebody of the list."})
    size = forms.IntegerField(required=False, label="Number of cells", min_value=1, max_value=MOST_CELLS)
    share_percent = forms.FloatField(
        required=False, label="Or a share, in percent", min_value=0, max_value=100, help_text="At most 1,000 cells."
    )
    reviewed_from = forms.DateField(
        required=False, label="Reviewed from", widget=forms.DateInput(attrs={"type": "date"})
    )
    reviewed_to = forms.DateField(required=False, label="Reviewed to", widget=forms.DateInput(attrs={"type": "date"}))

    def __init__(self, data: Any = None, *, people: list[User]) -> None:
        super().__init__(data, initial={"size": 100})
        self.people = {str(person.pk): person for person in people}
        choices = [("", "Choose a reader"), *((pk, f"{person}") for pk, person in self.people.items())]
        self.fields["reader"].choices = choices  # type: ignore[attr-defined]


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def reread_list(request: SignedInRequest) -> HttpResponse:
    """One's own re-reads; for an auditor all of them, and the form that draws one."""
    user = request.user
    may_draw = user.may(Verb.AUDIT)
    if not (may_draw or user.may(Verb.REVIEW)) or (request.method == "POST" and not may_draw):
        raise PermissionDenied
    people = [person for person in people_who_review(user.laboratory_id) if person.is_active] if may_draw else []
    form = DrawForm(request.POST if request.method == "POST" else None, people=people)
    status = 200
    with timezone.override(settings_of(user.laboratory_id).time_zone):  # type: ignore[arg-type]
        if form.is_valid():
            try:
                drawn = drawn_by(user, form)
            except HematoVisionError as error:
                field = FIELD_OF_CODE.get(error.code)
                form.add_error(field if field in form.fields else None, error.message)
                status = error.status
            else:
                own = own_count(drawn)
                messages.success(
                    request,
                    f"{drawn.size:,} cells are drawn for {drawn.reader}; {own:,} of them are the reader's own reviews.",
                )
                return redirect("reread", reread_id=drawn.pk)
        elif form.errors:
            status = 400
        rereads = with_counts(rereads_for(user)).select_related("reader", "drawn_by")
        context = {"form": form, "may_draw": may_draw, "page": html_page(request, rereads, REREADS_ON_PAGE)}
        return render(request, "classifier/reread_list.html", context, status=status)


def drawn_by(user: User, form: DrawForm) -> BlindReread:
    wanted = dict(form.cleaned_data)
    reader = form.people[wanted.pop("reader")]
    return services.draw_reread(actor=user, reader=reader, **wanted)


def reread_for(request: SignedInRequest, reread_id: uuid.UUID) -> BlindReread:
    rereads = rereads_for(request.user).select_related("reader", "drawn_by", "laboratory")
    return get_object_or_404(rereads, pk=reread_id)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def reread(request: SignedInRequest, reread_id: uuid.UUID) -> HttpResponse:
    """For its reader, while it is open, the next cell; for the auditor, and once it is closed, what came of it."""
    found = reread_for(request, reread_id)
    is_reader = found.reader_id == request.user.pk
    if request.method == "POST":
        if not is_reader:
            raise PermissionDenied
        return read(request, found)
    if is_reader and found.closed_at is None:
        return next_cell(request, found)
    return result_page(request, found)


def read(request: SignedInRequest, found: BlindReread) -> HttpResponse:
    """Store what the form says of the cell that it showed, and go on."""
    said, position = request.POST.get("label", ""), request.POST.get("position", "")
    place = int(position) if position.isascii() and position.isdecimal() and len(position) < 6 else 0
    cell = get_object_or_404(RereadCell.objects.select_related("reread"), reread=found, position=place)
    try:
        services.read_blind(
            actor=request.user, cell=cell, label="" if said == UNUSABLE else said, unusable=said == UNUSABLE
        )
    except HematoVisionError as error:
        if error.status == 400:
            return next_cell(request, found, error)
        messages.warning(request, error.message)
    return redirect("reread", reread_id=found.pk)


def next_cell(request: SignedInRequest, found: BlindReread, error: HematoVisionError | None = None) -> HttpResponse:
    """The cell alone. Nothing on this page comes from the model, the review, the case or the file's name."""
    cell = cells_left(found).select_related("image").first()
    if cell is None:
        # What was left has been voided or removed since; there is nothing more to read.
        services.close_read_reread(actor=request.user, reread=found)
        return result_page(request, found)
    context = {
        "reread": found,
        "position": cell.position,
        "width": cell.image.width,
        "height": cell.image.height,
        "progress": progress_of(found),
        "keys": keys_of(settings_of(found.laboratory_id)),
        "unusable": UNUSABLE,
        "error": error,
    }
    return render(request, "classifier/reread_cell.html", context, status=error.status if error else 200)


def result_page(request: SignedInRequest, found: BlindReread) -> HttpResponse:
    cells = read_twice(found)
    context = {
        "reread": found,
        "progress": progress_of(found),
        "own": own_count(found),
        "result": result_of(cells),
        "parts": [
            ("First reviewed by the same person", result_of(cell for cell in cells if cell.own)),
            ("First reviewed by somebody else", result_of(cell for cell in cells if not cell.own)),
        ],
        "may_close": request.user.may(Verb.AUDIT) and found.closed_at is None,
    }
    with timezone.override(settings_of(found.laboratory_id).time_zone):
        return render(request, "classifier/reread_result.html", context)


@posted_from("reread")
def reread_close(request: SignedInRequest, reread_id: uuid.UUID) -> HttpResponse:
    """Ends a re-read early."""
    found = reread_for(request, reread_id)
    if not request.user.may(Verb.AUDIT):
        raise PermissionDenied
    services.close_reread(actor=request.user, reread=found)
    messages.success(request, "The re-read is closed. What was read so far counts.")
    return redirect("reread", reread_id=found.pk)


@require_safe
@never_cache
def reread_picture(request: SignedInRequest, reread_id: uuid.UUID, position: int) -> HttpResponse | FileResponse:
    """The picture of a drawn cell for its reader, while it is to be read; the address leads to nothing else."""
    found = reread_for(request, reread_id)
    if found.reader_id != request.user.pk or found.closed_at is not None:
        raise Http404
    cells = still_there(found).select_related("image__removed_picture")
    cell = get_object_or_404(cells, position=position)
    record_picture(actor=request.user, cell=cell)
    response = picture_of(cell.image)
    # The usual header names the image, by which its page with the model's answer could be found.
    response["Content-Disposition"] = "inline"
    return response
