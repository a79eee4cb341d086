"""Long polling: a GET with `?wait=SECONDS` is answered as soon as there is something to say, or when time is up.

A client that waits holds a thread of the web server, so only a quarter of them may wait; whoever comes when these are
taken is answered at once and told by Retry-After when to come again. No database connection is held meanwhile.
"""

import re
import threading
from collections.abc import Callable
from functools import wraps
from time import monotonic, sleep
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.models import User
from classifier.errors import InvalidInput
from classifier.models import Batch, BatchState, CellImage

LONGEST_WAIT = 30
COME_AGAIN = 2
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
places = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 4))

View = Callable[..., HttpResponseBase]
StillWaits = Callable[[User, UUID], bool]


def image_waits(user: User, image_id: UUID) -> bool:
    """Whether the image is queued or claimed and its batch not cancelled; False for one that the user does not see.

    One small query.
    """
    return CellImage.objects.visible_to(user).waiting().filter(pk=image_id, cancelled=False).exists()


def batch_waits(user: User, batch_id: UUID) -> bool:
    """Whether the batch is being checked or classified; one that waits for a person does not wait here."""
    batch = Batch.objects.visible_to(user).filter(pk=batch_id).first()
    if batch is None or batch.waits_for_start:
        return False
    return batch.state in (BatchState.CHECKING, BatchState.RUNNING)


def long_polled(view: type[APIView], still_waits: StillWaits) -> type[APIView]:
    """The same view, whose GET takes `wait`. Its address holds one id, by which `still_waits` asks."""
    plain: View = view.get  # type: ignore[attr-defined]

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "wait",
                {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT},
                description="Seconds to wait while this is still under way. Where too many wait already the answer "
                "comes at once, with Retry-After.",
            )
        ]
    )
    @wraps(plain)
    def get(self: APIView, request: Request, **about: Any) -> HttpResponseBase:
        seconds = wanted_seconds(request)
        (key,) = about.values()

        def under_way() -> bool:
            return still_waits(request.user, key)  # type: ignore[arg-type]

        if not seconds or not under_way():
            return plain(self, request, **about)
        if not places.acquire(blocking=False):
            answer = plain(self, request, **about)
            answer["Retry-After"] = str(COME_AGAIN)
            return answer
        try:
            wait_while(under_way, seconds)
        finally:
            places.release()
        return plain(self, request, **about)

    view.get = get  # type: ignore[attr-defined]
    return view


def wanted_seconds(request: Request) -> int:
    """How long the client would wait. Raises InvalidInput (invalid_wait)."""
    given = request.query_params.getlist("wait", ["0"])
    if len(given) != 1 or not re.fullmatch(r"[0-9]{1,2}", given[0]) or int(given[0]) > LONGEST_WAIT:
        message = f"The parameter wait is a whole number of seconds from 0 to {LONGEST_WAIT}, given once."
        raise InvalidInput("invalid_wait", message)
    return int(given[0])


def wait_while(under_way: Callable[[], bool], seconds: float) -> None:
    """Ask again and again, less and less often, until it is over or the time is."""
    end = monotonic() + seconds
    pause = FIRST_PAUSE
    while (left := end - monotonic()) > 0:
        if not connection.in_atomic_block:
            connection.close()
        sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
        if not under_way():
            return
