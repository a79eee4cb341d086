"""How often something may be tried from one place, counted where all web processes see it."""

from allauth.core.internal import ratelimit
from django.http import HttpRequest, HttpResponse

# From one network address. What is guessed at can't be guessed; nobody shall try.
RATES = {"invitation": "20/m/ip", "oidc": "30/m/ip", "api_token": "30/m/ip"}


def may_try(request: HttpRequest, action: str) -> bool:
    """Count one more try of `action`, a key of RATES; False when there were too many of late."""
    counted = ratelimit.consume(request, app="accounts", action=action, config=RATES, limit_get=True)
    return counted is not None


def too_many(request: HttpRequest) -> HttpResponse:
    """The page that says so, with status 429."""
    answer: HttpResponse = ratelimit.respond_429(request)
    return answer
