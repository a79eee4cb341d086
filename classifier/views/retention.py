"""The administrator's pages of keeping: the retention rule, legal holds, and the erasure of a pseudonym."""

import uuid
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier import services
from classifier.errors import HematoVisionError
from classifier.laboratory_settings import settings_of
from classifier.models import Case, LegalHold, PseudonymErasure, RetentionRule
from classifier.retention import (
    GRACE,
    LEAST_DAYS,
    MOST_DAYS,
    cases_on_hold,
    consequence_of,
    erasures_of,
    hold_of,
    removed_of,
    rule_of,
)
from classifier.services.permission import may_in

ROWS_ON_PAGE = 50
REASON: dict[str, Any] = {
    "label": "Reason",
    "max_length": 500,
    "widget": forms.Textarea(attrs={"rows": 3}),
    "error_messages": {"required": "Say why, in a few words."},
}
# What a person has looked at is sent along as a number; a change meanwhile is refused by the service.
SEEN: dict[str, Any] = {"required": False, "widget": forms.HiddenInput, "min_value": 0}


class RuleForm(forms.Form):
    keep_days = forms.IntegerField(
        required=False,
        label="Days",
        min_value=LEAST_DAYS,
        max_value=MOST_DAYS,
        help_text=f"After the newest report was signed, or the case was voided: {LEAST_DAYS} to {MOST_DAYS:,}. "
        "Empty: for ever.",
        widget=forms.NumberInput(attrs={"inputmode": "numeric"}),
    )
    reason = forms.CharField(**REASON, help_text="Kept with the rule. Write no name and no number of a patient.")
    seen = forms.IntegerField(**SEEN)


class HoldForm(forms.Form):
    reason = forms.CharField(**REASON, help_text="Everybody who sees the case reads it.")


class ErasureForm(forms.Form):
    pseudonym = forms.CharField(
        max_length=64,
        label="Patient pseudonym",
        help_text="Exactly as it stands on the cases.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    reason = forms.CharField(**REASON, help_text="Kept for ever. Don't write the pseudonym here.")
    seen = forms.IntegerField(**SEEN)

    def clean(self) -> dict[str, Any]:
        fields: dict[str, Any] = self.cleaned_data
        pseudonym, reason = fields.get("pseudonym"), fields.get("reason")
        if pseudonym and reason and pseudonym.casefold() in reason.casefold():
            self.add_error("reason", "The reason holds the pseudonym itself. It would not be erased: leave it out.")
        return fields


def require_keeper(request: SignedInRequest) -> uuid.UUID:
    """The laboratory whose keeping the user may look at. Raises PermissionDenied."""
    user = request.user
    if user.laboratory_id is None or not (user.may(Verb.ADMINISTER) or user.may(Verb.AUDIT)):
        raise PermissionDenied
    return user.laboratory_id


@never_cache
def retention(request: SignedInRequest) -> HttpResponse:
    """The rule and what came of it. POST shows what a rule would remove, and sets it once that was confirmed."""
    laboratory_id = require_keeper(request)
    may_set = request.user.may(Verb.ADMINISTER)
    rule = rule_of(laboratory_id)
    form = RuleForm(request.POST if request.method == "POST" else None, label_suffix="")
    consequence, status = None, 200
    if request.method == "POST":
        if not may_set:
            raise PermissionDenied
        if form.is_valid():
            days, seen = form.cleaned_data["keep_days"], form.cleaned_data["seen"]
            consequence = consequence_of(laboratory_id, days, timezone.now())
            if seen is not None:
                try:
                    reason = form.cleaned_data["reason"]
                    services.set_retention_rule(actor=request.user, keep_days=days, reason=reason, seen=seen)
                except HematoVisionError as error:
                    form.add_error(None, error.message)
                    status = error.status
                else:
                    messages.success(request, "The rule is set.")
                    return redirect("retention")
        else:
            status = 400
    held = cases_on_hold(laboratory_id)
    context = {
        "rule": rule,
        "starts_at": rule.at + GRACE if rule else None,
        "has_started": rule is not None and rule.at + GRACE <= timezone.now(),
        "now": consequence_of(laboratory_id, rule.keep_days if rule else None, timezone.now()),
        "removed": removed_of(laboratory_id),
        "may_set": may_set,
        "form": form,
        "consequence": consequence,
        "held": list(held.order_by("-opened_at")[:ROWS_ON_PAGE]),
        "held_count": held.count(),
        "rules": list(RetentionRule.objects.filter(laboratory=laboratory_id).select_related("by")[:ROWS_ON_PAGE]),
        "erasures": list(PseudonymErasure.objects.filter(laboratory=laboratory_id).select_related("by")[:ROWS_ON_PAGE]),
    }
    with timezone.override(settings_of(laboratory_id).time_zone):
        return render(request, "classifier/retention.html", context, status=status)


@never_cache
def erasure(request: SignedInRequest) -> HttpResponse:
    """Erase a pseudonym: POST says how many cases bear it, and erases it once that was confirmed.

    The pseudonym goes in the body of the form alone, never in an address.
    """
    laboratory_id = require_keeper(request)
    if not request.user.may(Verb.ADMINISTER):
        raise PermissionDenied
    form = ErasureForm(request.POST if request.method == "POST" else None, label_suffix="")
    found: dict[str, Any] | None = None
    status = 200
    if request.method == "POST" and form.is_valid():
        pseudonym, seen = form.cleaned_data["pseudonym"], form.cleaned_data["seen"]
        cases = Case.objects.filter(laboratory=laboratory_id, patient_pseudonym=pseudonym)
        found = {
            "cases": cases.count(),
            "held": cases_on_hold(laboratory_id).filter(patient_pseudonym=pseudonym).count(),
            "earlier": erasures_of(laboratory_id, pseudonym).first(),
        }
        if seen is not None:
            try:
                reason = form.cleaned_data["reason"]
                done = services.erase_pseudonym(actor=request.user, pseudonym=pseudonym, reason=reason, seen=seen)
            except HematoVisionError as error:
                form.add_error(None, error.message)
                status = error.status
            else:
                count = len(done.cases)
                messages.success(request, f"The pseudonym is erased from {count:,} case{'' if count == 1 else 's'}.")
                return redirect("retention")
    elif request.method == "POST":
        status = 400
    context = {"form": form, "found": found}
    with timezone.override(settings_of(laboratory_id).time_zone):
        return render(request, "classifier/retention_erasure.html", context, status=status)


@never_cache
def case_hold(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """The holds of a case, for everybody who sees it; an administrator places one or lifts it."""
    case = get_object_or_404(Case.objects.visible_to(request.user), pk=case_id)
    may_hold = may_in(case, request.user, Verb.ADMINISTER)
    form = HoldForm(request.POST if request.method == "POST" else None, label_suffix="")
    status = 200
    if request.method == "POST":
        if not may_hold:
            raise PermissionDenied
        act = services.lift_hold if request.POST.get("act") == "lift" else services.place_hold
        if form.is_valid():
            try:
                act(actor=request.user, case=case, reason=form.cleaned_data["reason"])
            except HematoVisionError as error:
                form.add_error(None, error.message)
                status = error.status
            else:
                return redirect("case", case_id=case.pk)
        else:
            status = 400
    context = {
        "case": case,
        "hold": hold_of(case),
        "steps": LegalHold.objects.filter(case=case).select_related("by").order_by("-version"),
        "may_hold": may_hold,
        "form": form,
    }
    with timezone.override(settings_of(case.laboratory_id).time_zone):
        return render(request, "classifier/retention_hold.html", context, status=status)
