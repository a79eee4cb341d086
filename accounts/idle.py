"""A session ends when its user has done nothing for some time. What the pages ask for by themselves keeps none alive.

The session holds when its user was last active; that is written at most once a minute, so that a page costs no write.
"""

import time
from collections.abc import Callable
from typing import Any

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts import audit
from accounts.middleware import SignedInRequest

ACTIVE_AT = "active_at"
WRITE_EVERY_S = 60
READING = frozenset({"GET", "HEAD", "OPTIONS"})


class IdleSignOutMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # Without its cookie there is no session to look at: a client with a token costs nothing here.
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or SESSION_KEY not in request.session:
            return self.get_response(request)
        now = time.time()
        # A session that was opened before there was such a note ends as well.
        active_at = request.session.get(ACTIVE_AT, 0.0)
        if settings.IDLE_SECONDS and now - active_at > settings.IDLE_SECONDS:
            sign_out(request)
        elif ACTIVE_AT not in request.session or (is_activity(request) and now - active_at >= WRITE_EVERY_S):
            note_activity(request, now)
        response = self.get_response(request)
        # A form that took minutes to come in was activity all the while, if nothing else ended the session meanwhile.
        key = request.session.session_key
        took_minutes = request.method not in READING and time.time() - now > WRITE_EVERY_S
        if took_minutes and key is not None and request.session.exists(key):
            note_activity(request, time.time())
        return response


def is_activity(request: HttpRequest) -> bool:
    """Whether a person did this: opened a page or sent something. Scripts tell of keys and pointers by `activity`."""
    if request.path == reverse("activity"):
        return False
    if request.method in READING:
        return "X-Fragment" not in request.headers and "text/html" in request.headers.get("Accept", "")
    return True


def note_activity(request: HttpRequest, at: float) -> None:
    request.session[ACTIVE_AT] = at
    seen = UserSession.objects.filter(session_key=request.session.session_key).update(last_seen_at=timezone.now())
    if not seen and request.user.is_authenticated:
        UserSession.objects.create_from_request(request)


def start_of_session(*, request: HttpRequest | None, **_: Any) -> None:
    """Signing in is activity."""
    if request is not None:
        request.session[ACTIVE_AT] = time.time()


def sign_out(request: HttpRequest) -> None:
    if request.user.is_authenticated:
        audit.record(action="signed_out_idle", actor=request.user, target=request.user)
    UserSession.objects.filter(session_key=request.session.session_key).delete()
    request.session.flush()
    request.user = AnonymousUser()


@require_http_methods(["GET", "POST"])
@never_cache
def activity(request: SignedInRequest) -> HttpResponse:
    """How many seconds are left; POST tells for how many seconds the person at the page has been idle."""
    now = time.time()
    active_at = request.session.get(ACTIVE_AT, now)
    if request.method == "POST":
        try:
            idle_s = max(0.0, float(request.POST.get("idle", "0")))
        except ValueError:
            return JsonResponse({"code": "invalid", "message": "idle is a number of seconds."}, status=400)
        if now - idle_s > active_at:
            active_at = now - idle_s
            note_activity(request, active_at)
    left = settings.IDLE_SECONDS - (now - active_at)
    return JsonResponse({"seconds_left": round(left, 1) if settings.IDLE_SECONDS else None})
