"""How many requests a token may send: enough for any client that means well, and an end for one that runs wild.

The count is kept in each web process: it needs neither a database row nor the broker for every request, and an instance
of n processes lets through n times as much. Sign-in and passwords have their own, tight limits in the database.
"""

import threading
import time
from typing import Any, ClassVar

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from accounts.models import ApiToken

# So many seconds' worth may come at once.
BURST_SECONDS = 10
MOST_CLIENTS = 10_000


class Bucket:
    """Fills by `rate` a second up to BURST_SECONDS' worth; each request takes one."""

    def __init__(self, rate: float, now: float) -> None:
        self.left = rate * BURST_SECONDS
        self.at = now

    def take(self, rate: float, now: float) -> float:
        """Take one. Returns for how many seconds there is none; 0 where there was one."""
        self.left = min(rate * BURST_SECONDS, self.left + (now - self.at) * rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / rate
        self.left -= 1
        return 0.0


class PerToken(BaseThrottle):
    """At most API_REQUESTS_PER_SECOND of a token, or of a user who is signed in, in each web process."""

    buckets: ClassVar[dict[str, Bucket]] = {}
    lock: ClassVar[threading.Lock] = threading.Lock()
    waiting: float = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:
        rate = float(settings.API_REQUESTS_PER_SECOND)
        if isinstance(request.auth, ApiToken):
            client = f"token {request.auth.digest}"
        elif request.user.pk is not None:
            client = f"user {request.user.pk}"
        else:
            return True
        now = time.monotonic()
        with self.lock:
            if len(self.buckets) >= MOST_CLIENTS and client not in self.buckets:
                self.forget_the_idle(now)
            bucket = self.buckets.setdefault(client, Bucket(rate, now))
            self.waiting = bucket.take(rate, now)
        return not self.waiting

    def wait(self) -> float:
        return self.waiting

    def forget_the_idle(self, now: float) -> None:
        """A bucket that has had the time to fill up is as good as a new one."""
        for client, bucket in list(self.buckets.items()):
            if now - bucket.at > BURST_SECONDS:
                del self.buckets[client]
