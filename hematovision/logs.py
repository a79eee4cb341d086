"""One log line an event, with the request's id, and never patient text."""

from ipaddress import ip_address
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.http import HttpRequest
from django.urls import Resolver404, resolve
from django_structlog.middlewares import RequestMiddleware

PROBES = {"/healthz", "/readyz", "/metrics"}


class RequestLogMiddleware(RequestMiddleware):
    """Logs requests by method and route, each in one line when it is answered. Health probes are left out."""

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request) if request.path in PROBES else super().__call__(request)

    def prepare(self, request: HttpRequest) -> None:
        structlog.contextvars.bind_contextvars(request_id=str(uuid4()), ip=client_address(request))
        # Who has no session is known by a token, or by nobody, once the view has asked.
        if settings.SESSION_COOKIE_NAME in request.COOKIES:
            self.bind_user_id(request)

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        return f"{request.method} {shown_path(request)}"


def shown_path(request: HttpRequest) -> str:
    """The route with ids filled in; whatever else stands in a path (a reset key, a typed name) is not for logs."""
    try:
        match = request.resolver_match or resolve(request.path_info)
    except Resolver404:
        return "(no such page)"
    route = f"/{match.route}"
    for name, value in match.kwargs.items():
        if isinstance(value, UUID):
            route = route.replace(f"<uuid:{name}>", str(value))
    return route


def client_address(request: HttpRequest) -> str | None:
    """The client's address as far as it can be believed: what the trusted proxies wrote, else the connection's."""
    forwarded = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
    trusted = settings.TRUSTED_PROXIES
    claimed = forwarded[-trusted] if 0 < trusted <= len(forwarded) else request.META.get("REMOTE_ADDR", "")
    try:
        return str(ip_address(claimed))
    except ValueError:
        return None
