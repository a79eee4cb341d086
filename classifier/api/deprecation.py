"""Telling clients early that an address will go: Deprecation (RFC 9745) and Sunset (RFC 8594) on each of its answers.

A view says it by `deprecation = Deprecation(since=date(2027, 1, 1), sunset=date(2027, 7, 1), successor="api-cases")`;
its operations are marked in the OpenAPI document as well. How long what is in use stays: docs/api.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.http import http_date


@dataclass(frozen=True)
class Deprecation:
    """Since when an address should not be used any more, when it goes, and the name of the one that takes its place."""

    since: date
    sunset: date
    successor: str = ""

    def headers(self) -> dict[str, str]:
        told = {"Deprecation": f"@{moment(self.since)}", "Sunset": http_date(moment(self.sunset))}
        if self.successor:
            told["Link"] = f'<{reverse(self.successor)}>; rel="successor-version"'
        return told


def moment(day: date) -> int:
    return int(datetime.combine(day, time.min, tzinfo=UTC).timestamp())


class DeprecationMiddleware:
    """Adds the headers to whatever is answered at such an address, refusals as well."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        match = request.resolver_match
        deprecation = getattr(getattr(match.func, "cls", None), "deprecation", None) if match else None
        if deprecation is not None:
            for name, value in deprecation.headers().items():
                response[name] = value
        return response
