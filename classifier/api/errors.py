"""The API's one shape of errors: RFC 9457 problem details with a stable code."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFilesSent
from django.http import Http404, HttpResponse, JsonResponse, UnreadablePostError
from rest_framework import exceptions
from rest_framework.views import set_rollback

from classifier.errors import HematoVisionError

CODES: dict[type[exceptions.APIException], tuple[str, str]] = {
    exceptions.NotAuthenticated: ("not_authenticated", "Send your token in the header Authorization: Token ..."),
    exceptions.AuthenticationFailed: ("invalid_token", "The token is unknown, expired or revoked. Make a new one."),
    exceptions.PermissionDenied: ("not_allowed", "Your role or your token's scopes do not allow this."),
    exceptions.NotFound: ("not_found", "There is nothing here, or it belongs to another laboratory."),
    exceptions.MethodNotAllowed: ("method_not_allowed", "This address does not answer that method."),
    exceptions.NotAcceptable: ("not_acceptable", "The API answers in JSON; ask for application/json."),
    exceptions.UnsupportedMediaType: ("unsupported_media_type", "This address does not read that content type."),
    exceptions.ParseError: ("malformed_request", "The body could not be read as the content type that it names."),
    exceptions.Throttled: ("too_many_requests", "Too many requests; wait as long as Retry-After says."),
}
BROKEN_OFF = "The request broke off or came too slowly, and nothing of it was kept. Send it again."


def problem(
    *, status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None, **details: Any
) -> HttpResponse:
    body: dict[str, Any] = {
        **details,
        "type": f"urn:hematovision:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors:
        body["errors"] = errors
    return JsonResponse(body, status=status, content_type="application/problem+json")


def problem_response(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's exception handler. Anything unknown is None: it becomes a logged 500 without a word of its text."""
    set_rollback()
    if isinstance(error, HematoVisionError):
        response = problem(status=error.status, code=error.code, detail=error.message, **error.details)
        if error.retry_after is not None:
            response["Retry-After"] = str(error.retry_after)
        return response
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    if isinstance(error, UnreadablePostError):
        return problem(status=408, code="request_broken_off", detail=BROKEN_OFF)
    if isinstance(error, TooManyFilesSent):
        return problem(status=400, code="one_file_a_request", detail="Send one file in each request.")
    if isinstance(error, RequestDataTooBig | SuspiciousOperation):
        return problem(status=400, code="malformed_request", detail="The request is larger or stranger than expected.")
    if isinstance(error, exceptions.ValidationError):
        fields = list(flattened(error.get_full_details()))
        detail = " ".join(
            f"{field['field']}: {field['message']}" if field["field"] else field["message"] for field in fields
        )
        return problem(status=400, code="invalid_input", detail=detail, errors=fields)
    if isinstance(error, exceptions.APIException):
        kind = next((kind for kind in type(error).__mro__ if kind in CODES), None)
        code, detail = CODES[kind] if kind else ("error", str(error.default_detail))
        if "CSRF" in str(error.detail):
            code, detail = "csrf_failed", "With a session, send the header X-CSRFToken as well; a token needs none."
        response = problem(status=error.status_code, code=code, detail=detail)
        if header := getattr(error, "auth_header", None):
            response["WWW-Authenticate"] = header
        if wait := getattr(error, "wait", None):
            response["Retry-After"] = str(int(wait) + 1)
        return response
    return None


def flattened(details: Any, field: str = "") -> Iterable[dict[str, str]]:
    """DRF's nested validation details as a flat list of field, code and message."""
    if isinstance(details, dict) and set(details) == {"message", "code"}:
        name = "" if field == "non_field_errors" else field
        yield {"field": name, "code": str(details["code"]), "message": str(details["message"])}
    elif isinstance(details, dict):
        for name, inner in details.items():
            yield from flattened(inner, f"{field}.{name}" if field else name)
    else:
        for inner in details:
            yield from flattened(inner, field)
