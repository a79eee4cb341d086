"""One signed request to one receiver: over TLS to an address that was judged, with one deadline for all of it."""

import hashlib
import hmac
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.utils import timezone

from classifier.errors import InvalidInput
from classifier.safe_address import Address, AddressRefused, Target, addresses_of, connect, target_of

READ_AT_MOST = 4096  # bytes of an answer's body: read so that the receiver can finish, and thrown away
# The answers with which a receiver may say when to come again, and the longest that it is heeded.
SAYS_WHEN = (429, 503)
LONGEST_PAUSE = timedelta(hours=1)


@dataclass(frozen=True)
class Answer:
    """What came of a request: the HTTP status if there was one, and a code of OUTCOMES, empty when acknowledged.

    `pause` is how long the receiver asks to be left alone.
    """

    status: int | None
    code: str
    pause: timedelta = timedelta(0)

    @property
    def acknowledged(self) -> bool:
        return not self.code


class Deadline:
    """One span of time for everything that is done under it."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left. Raises TimeoutError when there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class NotTrusted(Exception):
    """The receiver could not prove that it bears its name."""


def signature(secrets: Sequence[str], timestamp: int, body: bytes) -> str:
    """The signature header: `t=SECONDS,v1=HEX`, with a `v1` for each secret. HEX is HMAC-SHA256 of `SECONDS.BODY`."""
    signed = str(timestamp).encode() + b"." + body
    digests = (hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets)
    return ",".join([f"t={timestamp}", *(f"v1={digest}" for digest in digests)])


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """POST a body to a URL, within WEBHOOK_SECONDS for all of it. Follows no redirect; keeps nothing of the answer."""
    deadline = Deadline(settings.WEBHOOK_SECONDS)
    try:
        target = target_of(url)
        with open_connection(target, addresses_of(target, deadline.left()), deadline) as connection:
            status, retry_after = exchange(connection, target, body, headers, deadline)
            return answered(status, retry_after)
    except InvalidInput:
        # It was accepted once: the instance's rules are stricter now.
        return Answer(None, "address_refused")
    except AddressRefused as error:
        return Answer(None, error.code)
    except TimeoutError:
        return Answer(None, "timed_out")
    except NotTrusted:
        return Answer(None, "not_trusted")
    except http.client.RemoteDisconnected:
        return Answer(None, "not_connected")
    except http.client.HTTPException:
        return Answer(None, "not_http")
    except OSError:
        return Answer(None, "not_connected")


def answered(status: int, retry_after: str = "") -> Answer:
    if 200 <= status < 300:
        return Answer(status, "")
    pause = pause_of(retry_after) if status in SAYS_WHEN else timedelta(0)
    return Answer(status, "redirected" if 300 <= status < 400 else "not_acknowledged", pause)


def pause_of(retry_after: str) -> timedelta:
    """How long a Retry-After asks to wait, in seconds or by a date: an hour at most, nothing where it can't be read."""
    text = retry_after.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(timedelta(seconds=int(text)), LONGEST_PAUSE)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return timedelta(0)
    # An HTTP date is in GMT, also where it does not say so.
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(timedelta(0), min(moment - timezone.now(), LONGEST_PAUSE))


def open_connection(target: Target, addresses: Sequence[Address], deadline: Deadline) -> socket.socket:
    """Connected to the first of the addresses that can be reached; with https, to who bears the target's name.

    Raises OSError, TimeoutError, NotTrusted.
    """
    for place, address in enumerate(addresses, start=1):
        try:
            connection = connect(address, target.port, deadline.left())
            break
        except OSError:
            if place == len(addresses):
                raise
    if target.scheme == "http":
        return connection
    try:
        connection.settimeout(deadline.left())
        return trusted(settings.WEBHOOK_CA_FILE).wrap_socket(connection, server_hostname=target.host)
    except OSError as error:
        connection.close()
        if isinstance(error, ssl.SSLError):
            raise NotTrusted from error
        raise


@lru_cache(maxsize=2)
def trusted(ca_file: str) -> ssl.SSLContext:
    """The authorities that this machine trusts, and those of `ca_file` as well. TLS 1.2 or newer."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def exchange(
    connection: socket.socket, target: Target, body: bytes, headers: Mapping[str, str], deadline: Deadline
) -> tuple[int, str]:
    """Send the request; the answer's status and its Retry-After. Raises HTTPException, OSError, TimeoutError."""
    request = OpenConnection(connection, target, deadline)
    request.request("POST", target.path, body, {**headers, "Connection": "close"})
    answer = request.getresponse()
    try:
        answer.read(READ_AT_MOST)
    except (OSError, http.client.HTTPException):
        # The status is what counts.
        pass
    return answer.status, answer.getheader("Retry-After", "")


class OpenConnection(http.client.HTTPConnection):
    """http.client over a connection that is there already."""

    def __init__(self, connection: socket.socket, target: Target, deadline: Deadline) -> None:
        super().__init__(target.host, target.port)
        # Decides whether the Host header names the port.
        self.default_port = 443 if target.scheme == "https" else 80
        self.sock = TimedSocket(connection, deadline)

    def connect(self) -> None:
        raise http.client.NotConnected


class TimedSocket:
    """What http.client needs of a socket; every step may take only what is left of the deadline."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self.connection = connection
        self.deadline = deadline

    def sendall(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            self.connection.settimeout(self.deadline.left())
            left = left[self.connection.send(left) :]

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(TimedReader(self.connection, self.deadline))

    def close(self) -> None:
        """Whoever opened the connection closes it."""


class TimedReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self.connection = connection
        self.deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.connection.settimeout(self.deadline.left())
        return self.connection.recv_into(buffer)
