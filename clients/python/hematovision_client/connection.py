"""Requests over one kept connection a thread, repeated where that is safe."""

import email.utils
import http.client
import json
import logging
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from hematovision_client.multipart import FileForm
from hematovision_client.problem import Problem, problem_of

T = TypeVar("T")
API = "/api/v1"
COME_AGAIN = (429, 502, 503, 504)
# A claim of a request that died frees its key after a minute.
TRIES_WHILE_IN_PROGRESS = 35
LONGEST_PROBLEM = 1024 * 1024
LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Says method, path (ids only, no query) and status; never a token, a body or a name.
log = logging.getLogger("hematovision_client")


class Connection:
    """Where the server is, and how often and how long it is asked."""

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        timeout: float,
        tries: int,
        longest_pause: float,
        context: ssl.SSLContext | None,
        allow_http: bool,
    ) -> None:
        address = urlsplit(base_url if "://" in base_url else f"https://{base_url}")
        if address.scheme not in ("https", "http") or not address.hostname or address.query or address.username:
            raise ValueError("The address of the instance reads like https://hematovision.example.org.")
        if address.scheme == "http" and not allow_http and address.hostname not in LOOPBACK:
            raise ValueError("Over http the token could be read on the way: use https, or say allow_http=True.")
        if tries < 1 or timeout <= 0:
            raise ValueError("There must be one try at least, and time for it.")
        if not token or not token.isascii() or not token.isprintable():
            raise ValueError("The token is not one that HematoVision gives out.")
        self.host, self.port, self.prefix = address.hostname, address.port, address.path.rstrip("/")
        self.context = (context or ssl.create_default_context()) if address.scheme == "https" else None
        self.timeout, self.tries, self.longest_pause = timeout, tries, longest_pause
        self._authorization = f"Token {token}"
        self._own = threading.local()

    def close(self) -> None:
        """End this thread's connection; the next request opens another."""
        kept: HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None:
            kept.close()

    def request(
        self,
        method: str,
        path: str,
        consume: Callable[[HTTPResponse], T],
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | FileForm | None = None,
        timeout: float | None = None,
        accept: str = "application/json",
    ) -> T:
        """What `consume` makes of a good answer. Every POST bears a key of its own, so that repeating it is safe.

        Raises Problem.
        """
        headers = {"Authorization": self._authorization, "Accept": accept}
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid.uuid4())
        target = f"{self.prefix}{API}{path}" + (f"?{urlencode(query)}" if query else "")
        failed = in_progress = 0
        while True:
            try:
                taken = self._once(method, target, headers, body, timeout or self.timeout, consume)
                log.debug("%s %s: done", method, path)
                return taken
            except Problem as problem:
                self.close()
                log.info("%s %s: %s", method, path, problem)
                if problem.code == "in_progress":
                    in_progress += 1
                    again = in_progress < TRIES_WHILE_IN_PROGRESS
                else:
                    failed += 1
                    again = problem.status in COME_AGAIN and failed < self.tries
                pause = problem.retry_after if problem.retry_after is not None else pause_after(failed)
                if not again or pause > self.longest_pause:
                    raise
            except ssl.SSLCertVerificationError as error:
                self.close()
                detail = "The server's certificate is not trusted. Check the address, or give an ssl context."
                raise Problem(0, "not_trusted", detail) from error
            except (OSError, HTTPException) as error:
                self.close()
                failed += 1
                log.info("%s %s: no answer (%s)", method, path, type(error).__name__)
                if failed >= self.tries:
                    raise Problem(0, "not_connected", f"The server did not answer, {failed} times.") from error
                pause = pause_after(failed)
            time.sleep(pause)

    def _once(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Mapping[str, object] | FileForm | None,
        timeout: float,
        consume: Callable[[HTTPResponse], T],
    ) -> T:
        connection = self._connected(timeout)
        connection.putrequest(method, target)
        for name, value in headers.items():
            connection.putheader(name, value)
        if isinstance(body, FileForm):
            connection.putheader("Content-Type", body.content_type)
            connection.putheader("Content-Length", str(body.length))
            connection.endheaders()
            for piece in body.pieces():
                try:
                    connection.send(piece)
                except (BrokenPipeError, ConnectionResetError):
                    # A server that refuses early hangs up before all is sent; its answer may be there already.
                    break
        else:
            data = b"" if body is None else json.dumps(body).encode()
            if body is not None:
                connection.putheader("Content-Type", "application/json")
            if body is not None or method == "POST":
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data or None)
        answer = connection.getresponse()
        if not 200 <= answer.status < 300:
            raise problem_of(answer.status, answer.read(LONGEST_PROBLEM), retry_after(answer))
        taken = consume(answer)
        # What is left would be read as the start of the next answer.
        answer.read()
        return taken

    def _connected(self, timeout: float) -> HTTPConnection:
        connection: HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            if self.context is None:
                connection = HTTPConnection(self.host, self.port)
            else:
                connection = HTTPSConnection(self.host, self.port, context=self.context)
            self._own.connection = connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection


def json_of(answer: HTTPResponse) -> Any:
    """The answer's document. Raises Problem (not_understood)."""
    data = answer.read()
    try:
        return json.loads(data)
    except ValueError as error:
        detail = "The server's answer is not JSON. Is the address that of a HematoVision instance?"
        raise Problem(0, "not_understood", detail) from error


def retry_after(answer: http.client.HTTPResponse) -> float | None:
    """The header in seconds, whether it was given as seconds or as a date."""
    given = (answer.getheader("Retry-After") or "").strip()
    if given.isascii() and given.isdecimal() and len(given) < 10:
        return float(given)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None


def pause_after(failed: int) -> float:
    """Seconds to wait after so many failures in a row: none after the first, which may be a connection gone stale."""
    return 0.0 if failed <= 1 else min(0.5 * 2 ** (failed - 2), 8.0)
