"""Forms that are posted to an address of their own."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect

from accounts.middleware import SignedInRequest

View = Callable[..., HttpResponse]


def posted_from(page: str) -> Callable[[View], View]:
    """A view for forms of `page`. Who comes by a link, after signing in again say, is sent to that page instead."""

    def decorate(view: View) -> View:
        @wraps(view)
        def answer(request: SignedInRequest, **about: Any) -> HttpResponse:
            return view(request, **about) if request.method == "POST" else redirect(page, **about)

        return answer

    return decorate
