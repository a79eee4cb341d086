"""Emergency access: the form that opens one case of another laboratory, and who opened cases of one's own."""

import uuid
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier import services
from classifier.emergency import (
    accesses_by_laboratory,
    accesses_to_end,
    accesses_to_laboratory,
    may_see_accesses,
    open_cases,
)
from classifier.errors import HematoVisionError
from classifier.paging import html_page

ACCESSES_ON_PAGE = 50
OWN_SHOWN = 20
FIELD_OF_CODE = {
    "no_such_case": "accession_number",
    "own_laboratory": "laboratory",
    "reason_missing": "reason",
    "reason_too_long": "reason",
    "wrong_password": "password",
    "too_many_tries": "password",
}


class EmergencyForm(forms.Form):
    """What has to be typed: nothing is offered, so that nothing can be looked for."""

    laboratory = forms.CharField(
        max_length=120,
        help_text="Its exact name.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    accession_number = forms.CharField(
        max_length=64,
        label="Accession number",
        help_text="The exact number.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    reason = forms.CharField(
        max_length=500,
        help_text="The other laboratory reads it.",
        widget=forms.Textarea(attrs={"rows": 3}),
        error_messages={"required": "Say why, in a few words."},
    )
    password = forms.CharField(
        strip=False,
        label="Your password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        error_messages={"required": "Enter your own password again."},
    )


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def emergency(request: SignedInRequest) -> HttpResponse:
    """The form, for those who may open a case; the list, for those who are told of it."""
    may_open, may_see = request.user.may(Verb.EMERGENCY), may_see_accesses(request.user)
    if not (may_open or may_see) or (request.method == "POST" and not may_open):
        raise PermissionDenied
    form = EmergencyForm(request.POST if request.method == "POST" else None)
    status = 200
    if form.is_valid():
        try:
            access = services.open_emergency_access(actor=request.user, **form.cleaned_data)
        except HematoVisionError as error:
            field = FIELD_OF_CODE.get(error.code)
            form.add_error(field if field in form.fields else None, error.message)
            status = error.status
        else:
            messages.warning(request, "The case is open to you for an hour. Its laboratory has been told.")
            return redirect("case", case_id=access.case_id)
    elif form.errors:
        status = 400
    context: dict[str, Any] = {"form": form, "may_open": may_open, "may_see": may_see}
    if may_open:
        context["open"] = open_cases(request.user)
    if may_see:
        context["page"] = html_page(request, accesses_to_laboratory(request.user), ACCESSES_ON_PAGE)
        context["may_end"] = request.user.may(Verb.ADMINISTER)
        context["by_own"] = accesses_by_laboratory(request.user)[:OWN_SHOWN]
    return render(request, "classifier/emergency.html", context, status=status)


@require_POST
def emergency_end(request: SignedInRequest, access_id: uuid.UUID) -> HttpResponse:
    """End an access: the own one, or as an administrator one to a case of the own laboratory."""
    access = get_object_or_404(accesses_to_end(request.user), pk=access_id)
    try:
        services.end_emergency_access(actor=request.user, access=access)
    except HematoVisionError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "The emergency access is ended.")
    return redirect("emergency")
