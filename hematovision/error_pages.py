"""What somebody sees when a request can't be answered: a page, or a problem document where the API was asked."""

import sys
from http import HTTPStatus

from django.core.exceptions import RequestDataTooBig, TooManyFilesSent
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.csrf import requires_csrf_token

from classifier.api.errors import BROKEN_OFF, problem
from classifier.errors import NO_ROOM, StorageUnavailable, Unavailable, database_unavailable, storage_full

SENTENCES = {
    400: "The request could not be understood. Go back and try again.",
    403: "You can't do this with your role. Ask your laboratory's administrator.",
    404: "There is nothing here, or it belongs to another laboratory.",
    500: "Something went wrong on our side. Nothing was lost; try again in a minute.",
}


def answer(request: HttpRequest, status: int, code: str, sentence: str = "") -> HttpResponse:
    sentence = sentence or SENTENCES[status]
    if request.path.startswith("/api/"):
        return problem(status=status, code=code, detail=sentence)
    context = {"status": status, "title": HTTPStatus(status).phrase, "sentence": sentence}
    return render(request, "error.html", context, status=status)


@requires_csrf_token
def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, TooManyFilesSent):
        message = "Too many files in one form: send at most 200 at a time, or drop them on the page with scripts on."
        return answer(request, 400, "too_many_files", message)
    if isinstance(exception, RequestDataTooBig):
        return answer(request, 400, "request_too_large", "The form holds more data than is accepted.")
    return answer(request, 400, "bad_request")


@requires_csrf_token
def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, 403, "not_allowed")


@requires_csrf_token
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, 404, "not_found")


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Rendered without context: whatever failed may have been the database or a context processor.

    What is missing for now is a 503, which clients and proxies know to try again.
    """
    error = sys.exc_info()[1]
    missing = what_is_missing(error)
    status, code, sentence = 500, "server_error", SENTENCES[500]
    if isinstance(error, UnreadablePostError):
        status, code, sentence = 408, "request_broken_off", BROKEN_OFF
    elif missing:
        status, code, sentence = missing.status, missing.code, missing.message
    response: HttpResponse
    if request.path.startswith("/api/"):
        response = problem(status=status, code=code, detail=sentence)
    else:
        page = render_to_string("error_500.html", {"status": status, "sentence": sentence})
        response = HttpResponse(page, status=status)
    if missing:
        response["Retry-After"] = str(missing.retry_after)
    return response


def what_is_missing(error: BaseException | None) -> Unavailable | None:
    """Whether it was the disk, the object store or the database that failed, and not the program."""
    if isinstance(error, StorageUnavailable):
        return error
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return storage_full()
    if isinstance(error, OperationalError | InterfaceError):
        # PostgreSQL's class of "out of room" errors, and SQLite's words for it.
        if getattr(error.__cause__, "sqlstate", "") == "53100" or "disk is full" in str(error):
            return storage_full()
        # SQLite says it in this class when a query is wrong, which no waiting mends.
        return None if str(error).startswith("no such") else database_unavailable()
    return None


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    sentence = "The page was open for too long or cookies are blocked. Reload the page and try again."
    return answer(request, 403, "csrf_failed", sentence)
