"""Entity tags: a client that has the newest state already is told so (304), before anything heavy is read.

A tag is weak: it stands for the state of the rows behind an answer, not for its bytes.
"""

import hashlib
import json
from typing import Any, ClassVar

from django.http import HttpResponse
from django.utils.cache import get_conditional_response
from rest_framework.request import Request
from rest_framework.response import Response

from classifier.errors import HematoVisionError

# Raised whenever the shape of an answer changes, so that nobody keeps an old one.
SHAPE = 1


class PreconditionFailed(HematoVisionError):
    """The thing is not in the state that the client knows."""

    status: ClassVar[int] = 412


def etag_of(request: Request, *state: Any) -> str:
    """The tag of what this address says while `state` (values that print the same when they are the same) holds."""
    told = json.dumps([SHAPE, request.build_absolute_uri(request.path), *state], default=str)
    return f'W/"{hashlib.sha256(told.encode()).hexdigest()[:32]}"'


def unchanged(request: Request, etag: str) -> HttpResponse | None:
    """304 where the client's If-None-Match names the tag."""
    if "If-None-Match" not in request.headers:
        return None
    known = get_conditional_response(request._request, etag=etag)
    if known is None or known.status_code != 304:
        return None
    known["ETag"] = etag
    return known


def tagged(body: Any, etag: str, **extra: Any) -> Response:
    """An answer that may be kept by its client, and asked about each time."""
    return Response(body, headers={"ETag": etag, "Cache-Control": "private, no-cache"}, **extra)


def require_match(request: Request, etag: str) -> None:
    """Raises PreconditionFailed (changed_meanwhile) where If-Match names another state than the present one."""
    wanted = request.headers.get("If-Match", "*")
    # Weakly compared: the tag stands for the very state that the client wants to change.
    if wanted.strip() != "*" and etag not in {part.strip() for part in wanted.split(",")}:
        message = "This was changed since you read it. Read it again, and decide again."
        raise PreconditionFailed("changed_meanwhile", message)
