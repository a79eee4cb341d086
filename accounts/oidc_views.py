"""Going to the OpenID Connect provider and coming back. Accounts are matched by their address, never made here."""

import time
from dataclasses import asdict

from allauth.account.internal.flows.login import record_authentication
from allauth.account.utils import perform_login
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts import attempts, oidc
from accounts.models import User
from accounts.refusals import AccountRefused
from accounts.roles import Role
from accounts.sign_in_audit import record_refused_oidc_sign_in

UNDER_WAY = "oidc"
WITHIN_S = 600


@login_not_required
@never_cache
@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """A link and no form: the policy for forms then needs no exception for the provider's address."""
    if not oidc.is_configured():
        raise Http404
    if request.user.is_authenticated:
        return redirect("home")
    if not attempts.may_try(request, "oidc"):
        return attempts.too_many(request)
    try:
        address, started = oidc.start(redirect_uri=own_address(request))
    except AccountRefused as refusal:
        return refused(request, refusal, None)
    wanted = request.GET.get("next", "")
    if not url_has_allowed_host_and_scheme(wanted, {request.get_host()}, request.is_secure()):
        wanted = ""
    request.session[UNDER_WAY] = {**asdict(started), "next": wanted, "at": time.time()}
    return redirect(address)


@login_not_required
@never_cache
@require_safe
def callback(request: HttpRequest) -> HttpResponse:
    if not oidc.is_configured():
        raise Http404
    if not attempts.may_try(request, "oidc"):
        return attempts.too_many(request)
    # Taken out whatever comes of it: an answer is good for one try.
    kept = request.session.pop(UNDER_WAY, None)
    user: User | None = None
    try:
        if not kept or time.time() - kept["at"] > WITHIN_S:
            raise AccountRefused("oidc_state", "This sign-in was started elsewhere, or too long ago. Start again.")
        if "code" not in request.GET:
            raise AccountRefused("oidc_cancelled", "You were not signed in there. Start again, or use your password.")
        started = oidc.Started(kept["state"], kept["nonce"], kept["verifier"])
        address = oidc.verified_address(
            started=started,
            state=request.GET.get("state", ""),
            code=request.GET["code"],
            redirect_uri=own_address(request),
        )
        # Exactly, and not as a database compares: to some "ı" is an "i", and the provider's other user is ours.
        user = User.objects.filter(email=address.lower()).select_related("laboratory").first()
        if user is not None and not address.isascii() and user.email != address:
            user = None
        if user is None or not user.is_active or user.role == Role.SERVICE:
            sentence = "There is no open account here for the address that you signed in with. Ask your administrator."
            raise AccountRefused("oidc_no_account", sentence)
    except AccountRefused as refusal:
        return refused(request, refusal, user)
    record_authentication(request, user, "oidc")
    answer: HttpResponse = perform_login(request, user, redirect_url=kept["next"] or None)
    return answer


def refused(request: HttpRequest, refusal: AccountRefused, user: User | None) -> HttpResponse:
    record_refused_oidc_sign_in(user=user, code=refusal.code)
    return render(request, "account/oidc_refused.html", {"refusal": refusal.message}, status=403)


def own_address(request: HttpRequest) -> str:
    return request.build_absolute_uri(reverse("oidc-callback"))
