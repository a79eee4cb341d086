"""The page behind an invitation's link: a name, a password, and the account is there."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.password_validation import password_validators_help_text_html
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from accounts import attempts
from accounts.invitations import accept_invitation, find_invitation
from accounts.refusals import AccountRefused


class AcceptForm(forms.Form):
    full_name = forms.CharField(
        label="Your name", max_length=120, help_text="As your colleagues know it; it stands under signed reports."
    )
    password1 = forms.CharField(
        label="Password", strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )
    password2 = forms.CharField(
        label="Password, again", strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fields["password1"].help_text = password_validators_help_text_html()

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("password1") and values.get("password2") and values["password1"] != values["password2"]:
            self.add_error("password2", "The two passwords differ.")
        return values


@login_not_required
@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest, invitation_id: UUID, secret: str) -> HttpResponse:
    if not attempts.may_try(request, "invitation"):
        return attempts.too_many(request)
    if request.user.is_authenticated:
        return render(request, "account/invitation.html", {"signed_in": True})
    try:
        found = find_invitation(invitation_id=invitation_id, secret=secret)
        form = AcceptForm(request.POST or None, initial={"full_name": found.full_name})
        if request.method == "POST" and form.is_valid():
            wanted = form.cleaned_data
            accept_invitation(
                invitation_id=invitation_id,
                secret=secret,
                full_name=wanted["full_name"],
                password=wanted["password1"],
            )
            messages.success(request, "Your account is there. Sign in with your e-mail address and your password.")
            return redirect("account_login")
    except AccountRefused as refusal:
        return render(request, "account/invitation.html", {"refusal": refusal.message}, status=410)
    except ValidationError as error:
        form.add_error("password1", error)
    context = {"invitation": found, "form": form}
    return render(request, "account/invitation.html", context, status=400 if form.errors else 200)
