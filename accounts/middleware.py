"""Every page needs a user, unless its view says otherwise."""

from typing import Any

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse

from accounts.models import User


class SignedInRequest(HttpRequest):
    """A request that has passed SignInRequiredMiddleware."""

    user: User


class SignInRequiredMiddleware(LoginRequiredMiddleware):
    """Sends strangers to the sign-in page; a script that asks for a fragment gets a plain 401 instead."""

    def handle_no_permission(self, request: HttpRequest, view_func: Any) -> Any:
        if "X-Fragment" in request.headers:
            return HttpResponse("Please sign in again.", status=401, content_type="text/plain")
        return super().handle_no_permission(request, view_func)
