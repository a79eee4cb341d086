"""A web worker whose threads are not held by clients that send a byte now and then.

A thread of gunicorn reads a request for as long as it takes, so that as many slow clients as there are threads would
stop the site. Here a client that has not sent what it should have by now may hold a thread only while half of them are
free of such clients, and none for ever. A reverse proxy that takes requests in whole, as in docs/operations.md, keeps
slow clients away altogether.
"""

import errno
import threading
import time
from typing import Any

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from classifier.wakeup import sender

# After so many seconds a client must have sent so many bytes a second, or it is a slow one.
FAST_SECONDS, FAST_BYTES = 2.0, 32 * 1024
# What even a slow one must do, where there is room for it.
SLOW_SECONDS, SLOW_BYTES = 20.0, 1024
# What has arrived already is read, however long a view took to ask for it.
MOMENT = 0.05


class TooSlow(ConnectionResetError):
    """For gunicorn as for Django the connection is lost."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "The request came too slowly.")


class TimedUnreader(SocketUnreader):
    """Reads from a socket no longer than its client deserves. `places` are shared by the slow ones of a process."""

    def __init__(self, sock: Any, places: threading.BoundedSemaphore) -> None:
        super().__init__(sock)
        self.places = places
        self.begin()

    def begin(self) -> None:
        """A new request begins."""
        self.started, self.received = time.monotonic(), 0

    def seconds_left(self, seconds: float, rate: int) -> float:
        return self.started + seconds + self.received / rate - time.monotonic()

    def chunk(self, size_hint: int | None = None) -> bytes:
        size = self.mxchunk
        if size_hint and size_hint > size:
            size = min(size_hint, self.max_body_chunk)
        before = self.sock.gettimeout()
        try:
            data = self.received_within(max(MOMENT, self.seconds_left(FAST_SECONDS, FAST_BYTES)), size)
            if data is None:
                data = self.received_slowly(size)
        finally:
            self.sock.settimeout(before)
        self.received += len(data)
        return data

    def received_within(self, seconds: float, size: int) -> bytes | None:
        if seconds <= 0:
            return None
        self.sock.settimeout(seconds)
        try:
            data: bytes = self.sock.recv(size)
        except TimeoutError:
            return None
        return data

    def received_slowly(self, size: int) -> bytes:
        if not self.places.acquire(blocking=False):
            raise TooSlow
        try:
            data = self.received_within(self.seconds_left(SLOW_SECONDS, SLOW_BYTES), size)
        finally:
            self.places.release()
        if data is None:
            raise TooSlow
        return data


class PatientWorker(ThreadWorker):
    """gunicorn's threaded worker, with timed reading. Half of its threads, at most, wait for slow clients."""

    def init_process(self) -> None:
        self.places = threading.BoundedSemaphore(max(1, self.cfg.threads // 2))
        # It returns when the process ends; threads live from here on, as they would not outlive the fork.
        with sender.in_background():
            super().init_process()

    def handle(self, conn: TConn) -> Any:
        if conn.initialized:
            if isinstance(unreader := getattr(conn.parser, "unreader", None), TimedUnreader):
                unreader.begin()
        else:
            initialise = conn.init

            def init() -> None:
                initialise()
                if isinstance(getattr(conn.parser, "unreader", None), SocketUnreader):
                    conn.parser.unreader = TimedUnreader(conn.sock, self.places)

            conn.init = init
        return super().handle(conn)
