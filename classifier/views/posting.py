"""Forms that are posted to an address of their own, by the person who filled them in."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse

from accounts.middleware import SignedInRequest

View = Callable[..., HttpResponse]
SIGNED_OUT = "If you were signed out while you sent a form, it was not stored. Please send it again."
ANOTHER_READER = "Somebody else is signed in now. Sign in as yourself to go on."


def posted_from(page: str) -> Callable[[View], View]:
    """A view for forms of `page`. Who comes by a link, after signing in again say, is sent to that page instead.

    A form may say in `reader` whose it is: nothing is looked up or written for anybody else. A script (X-Fragment) gets
    403 with `code` another_reader and `message`, a person that page with the same sentence.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def answer(request: SignedInRequest, **about: Any) -> HttpResponse:
            if request.method != "POST":
                messages.warning(request, SIGNED_OUT)
            elif not is_of_another(request):
                return view(request, **about)
            elif "X-Fragment" in request.headers:
                return JsonResponse({"code": "another_reader", "message": ANOTHER_READER}, status=403)
            else:
                messages.error(request, ANOTHER_READER)
            return HttpResponseRedirect(reverse(page, kwargs=about))

        return answer

    return decorate


def is_of_another(request: SignedInRequest) -> bool:
    """Whether the form was made for somebody else than who is signed in."""
    own = str(request.user.pk)
    return request.POST.get("reader", own) != own
