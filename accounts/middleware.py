"""Every page needs a user, unless its view says otherwise; and a second factor, where a policy asks for it."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect

from accounts import second_factor
from accounts.models import User

# What somebody reaches who has yet to set the second factor up: that, the way out, and what it is all about.
OPEN_WITHOUT_SECOND_FACTOR = frozenset(
    {
        "account_login",
        "account_logout",
        "account_inactive",
        "mfa_authenticate",
        "mfa_reauthenticate",
        "about",
        "activity",
        "healthz",
        "readyz",
    }
)
# For whoever has none: where it is set up. Who has one shows it first, or the password alone would lead to its codes.
SETTING_UP = frozenset(
    {"account_reauthenticate", "mfa_activate_totp", "mfa_view_recovery_codes", "mfa_download_recovery_codes"}
)


class SignedInRequest(HttpRequest):
    """A request that has passed SignInRequiredMiddleware."""

    user: User


class SignInRequiredMiddleware(LoginRequiredMiddleware):
    """Sends strangers to the sign-in page; a script that asks for a fragment gets a plain 401 instead."""

    def handle_no_permission(self, request: HttpRequest, view_func: Any) -> Any:
        if "X-Fragment" in request.headers:
            return HttpResponse("Please sign in again.", status=401, content_type="text/plain")
        return super().handle_no_permission(request, view_func)


class SecondFactorMiddleware:
    """Leads a user whose role needs a second factor to setting one up. Tokens of the API are no session: they pass."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view_func: Any, *_: Any) -> HttpResponse | None:
        user = request.user
        match = request.resolver_match
        if not isinstance(user, User) or (match is not None and match.view_name in OPEN_WITHOUT_SECOND_FACTOR):
            return None
        if not second_factor.is_required(user) or second_factor.was_shown(request):
            return None
        if match is not None and match.view_name in SETTING_UP and not second_factor.is_set_up(user):
            return None
        sentence = "Your role needs a second factor. Set it up on the pages first."
        if request.path.startswith("/api/"):
            code = "second_factor_required"
            problem = {"type": f"urn:hematovision:problem:{code}", "title": "Forbidden", "status": 403}
            problem |= {"detail": sentence, "code": code}
            return JsonResponse(problem, status=403, content_type="application/problem+json")
        if "X-Fragment" in request.headers:
            # As after a sign-out: the page keeps what is unsent and goes on once its user comes back.
            return HttpResponse(sentence, status=401, content_type="text/plain")
        # Whoever has one was signed in without it, before it was asked for.
        return redirect("mfa_reauthenticate" if second_factor.is_set_up(user) else "mfa_activate_totp")
