"""The page of API tokens: one's own, and for an administrator those of the laboratory's service accounts."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.middleware import SignedInRequest
from accounts.models import ApiToken, User
from accounts.roles import Role, Scope, Verb, scopes_of_role
from accounts.service_accounts import open_service_account, switch_service_account
from accounts.tokens import MOST_TOKENS, TokenRefused, make_token, revoke_token, tokens_in_use

DAYS = ((30, "30 days"), (90, "90 days"), (365, "365 days"))
MEANING = {
    Scope.READ: "Read: cases, images, results, reports",
    Scope.UPLOAD: "Upload: open and change cases, send images and batches",
    Scope.REVIEW: "Review: say what a cell is",
    Scope.RELEASE: "Release: sign, amend and void",
    Scope.ADMIN: "Administer: webhooks and the laboratory's settings",
}


class TokenForm(forms.Form):
    """A token of `owner`. Its fields bear the owner's id, so that several such forms can stand on one page."""

    name = forms.CharField(max_length=80, label="Name", help_text="What uses it, for example the analyser's interface.")
    scopes = forms.MultipleChoiceField(
        label="What it may do",
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one thing that the token may do."},
    )
    days = forms.TypedChoiceField(label="Valid for", choices=DAYS, coerce=int, initial=90)

    def __init__(self, data: Any = None, *, owner: User) -> None:
        super().__init__(data, prefix=str(owner.pk), initial={"scopes": [Scope.READ], "days": 90})
        choices = [(scope, MEANING[Scope(scope)]) for scope in scopes_of_role(owner.role)]
        self.fields["scopes"].choices = choices  # type: ignore[attr-defined]


class ServiceAccountForm(forms.Form):
    name = forms.CharField(max_length=120, label="Name", help_text="The system behind it, for example the LIS.")


@dataclass(frozen=True)
class Holder:
    """Somebody with tokens, and the form for another one; `form` is None where none can be made."""

    user: User
    tokens: list[ApiToken]
    form: TokenForm | None


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def tokens(request: SignedInRequest) -> HttpResponse:
    """Lists tokens; POST makes or revokes one, or makes or switches a service account, as `act` says."""
    if request.method != "POST":
        return page(request)
    acts = {
        "make": make,
        "revoke": revoke,
        "open-account": open_account,
        "switch-off": switch,
        "switch-on": switch,
    }
    act = acts.get(request.POST.get("act", ""))
    if act is None:
        raise Http404
    return act(request)


def make(request: SignedInRequest) -> HttpResponse:
    owner = owner_of(request, request.POST.get("owner", ""))
    form = TokenForm(request.POST, owner=owner)
    if form.is_valid():
        wanted = form.cleaned_data
        try:
            text = make_token(
                actor=request.user,
                user=owner,
                name=wanted["name"],
                scopes=wanted["scopes"],
                lifetime=timedelta(days=wanted["days"]),
            )
        except TokenRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            # Shown with this answer alone: it is kept nowhere, not even in the session.
            return page(request, made={"text": text, "name": wanted["name"], "owner": owner})
    return page(request, failed=form, owner=owner)


def revoke(request: SignedInRequest) -> HttpResponse:
    own = ApiToken.objects.filter(user__laboratory=request.user.laboratory_id).select_related("user")
    token = get_object_or_404(own, token_key=request.POST.get("token", ""))
    try:
        revoke_token(actor=request.user, token=token)
    except TokenRefused as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, f"The token {token.name} is revoked. It opens nothing any more.")
    return redirect("tokens")


def open_account(request: SignedInRequest) -> HttpResponse:
    form = ServiceAccountForm(request.POST)
    if form.is_valid():
        try:
            account = open_service_account(actor=request.user, name=form.cleaned_data["name"])
        except TokenRefused as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, f"The service account {account} is there. Make a token for it.")
            return redirect("tokens")
    return page(request, account_form=form)


def switch(request: SignedInRequest) -> HttpResponse:
    account = owner_of(request, request.POST.get("owner", ""))
    on = request.POST["act"] == "switch-on"
    try:
        switch_service_account(actor=request.user, account=account, on=on)
    except TokenRefused as refusal:
        messages.error(request, str(refusal))
    else:
        what = "on again; make a new token for it" if on else "off, and its tokens are revoked"
        messages.success(request, f"The service account {account} is {what}.")
    return redirect("tokens")


def owner_of(request: SignedInRequest, text: str) -> User:
    """Oneself, or an account that one looks after; else there is nothing here."""
    for holder in [request.user, *accounts_of(request.user)]:
        # A platform operator has no role, and so no token.
        if holder.role and str(holder.pk) == text:
            return holder
    raise Http404


def accounts_of(user: User) -> list[User]:
    """The service accounts of an administrator's laboratory; nobody else has any."""
    if not user.may(Verb.ADMINISTER):
        return []
    return list(User.objects.filter(laboratory=user.laboratory_id, role=Role.SERVICE).order_by("full_name", "email"))


def page(
    request: SignedInRequest,
    *,
    made: dict[str, Any] | None = None,
    failed: TokenForm | None = None,
    owner: User | None = None,
    account_form: ServiceAccountForm | None = None,
) -> HttpResponse:
    user = request.user
    accounts = accounts_of(user)
    kept: dict[Any, list[ApiToken]] = {}
    for token in tokens_in_use(user, *accounts):
        kept.setdefault(token.user_id, []).append(token)

    def holder(person: User) -> Holder:
        form = failed if owner is not None and person.pk == owner.pk else None
        if form is None and person.is_active and person.role:
            form = TokenForm(owner=person)
        return Holder(person, kept.get(person.pk, []), form)

    context = {
        "own": holder(user),
        "accounts": [holder(account) for account in accounts],
        "may_administer": user.may(Verb.ADMINISTER),
        "account_form": account_form or ServiceAccountForm(),
        "made": made,
        "most": MOST_TOKENS,
    }
    refused = failed or (account_form if account_form and account_form.errors else None)
    return render(request, "account/tokens.html", context, status=400 if refused else 200)
