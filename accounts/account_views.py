"""Your account: what one may see and change of it, and where one is signed in."""

from django.contrib import messages
from django.contrib.auth import logout
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts import second_factor
from accounts.middleware import SignedInRequest
from accounts.sessions import end_other_sessions, end_session, open_sessions
from accounts.tokens import tokens_in_use


@require_safe
@never_cache
def account(request: SignedInRequest) -> HttpResponse:
    user = request.user
    context = {
        "has_second_factor": second_factor.is_set_up(user),
        "needs_second_factor": second_factor.is_required(user),
        "open_sessions": len(open_sessions(user=user, session_key=request.session.session_key)),
        "tokens": tokens_in_use(user).count(),
    }
    return render(request, "account/account.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def sessions(request: SignedInRequest) -> HttpResponse:
    """Lists one's sessions; POST ends one (`session`) or all the others."""
    key = request.session.session_key
    if request.method != "POST":
        return render(request, "account/sessions.html", {"sessions": open_sessions(user=request.user, session_key=key)})
    if request.POST.get("act") == "end-others":
        ended = end_other_sessions(actor=request.user, session_key=key)
        messages.success(request, f"Ended: {ended}. You are signed in here only.")
        return redirect("sessions")
    if not request.POST.get("session", "").isdecimal():
        raise Http404
    session_id = int(request.POST["session"])
    own = {each.id: each for each in open_sessions(user=request.user, session_key=key)}
    if session_id not in own:
        raise Http404
    if own[session_id].is_this_one:
        logout(request)
        return redirect("account_login")
    end_session(actor=request.user, session_id=session_id)
    messages.success(request, "That session is ended.")
    return redirect("sessions")
