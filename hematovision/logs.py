"""One log line an event, with the request's id, and never patient text."""

from typing import Any

import structlog
from django.http import HttpRequest
from django_structlog.middlewares import RequestMiddleware

Event = structlog.typing.EventDict


PROBES = {"/healthz", "/readyz"}


class RequestLogMiddleware(RequestMiddleware):
    """Logs requests by method and path: a query string can hold what somebody typed. Health probes are left out."""

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request) if request.path in PROBES else super().__call__(request)

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {request.path}"


def without_browser(logger: Any, name: str, event: Event) -> Event:
    """Drop the browser's description: it identifies people and explains nothing."""
    event.pop("user_agent", None)
    return event
