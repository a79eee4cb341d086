"""Clients that send different real pictures over HTTP, as scripts would: keep-alive, several at a time."""

import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml.progress import Progress


@dataclass
class Sent:
    """What became of the pictures: `posts` has, an image id each, when its POST began and how long it took.

    `put_off` counts the answers 429, after which a client waited as long as it was told and sent the picture again.
    """

    started: float = 0.0
    ended: float = 0.0
    posts: dict[str, tuple[float, float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    put_off: int = 0


def multipart(
    content: bytes, *, field: str = "file", filename: str = "cell.jpg", content_type: str = "image/jpeg"
) -> tuple[bytes, str]:
    """The body of a form with one file, and the kind that its request names."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n'
    body = f"{head}Content-Type: {content_type}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def upload_all(
    port: int,
    path: str,
    pictures: Sequence[Path],
    *,
    clients: int,
    token: str = "",
    expected: int = 202,
    progress: Progress | None = None,
) -> Sent:
    """Send every picture once, so many clients at a time; times are seconds since the epoch and seconds."""
    bodies = [multipart(picture.read_bytes()) for picture in pictures]
    sent, left, lock = Sent(), iter(bodies), threading.Lock()
    threads = [
        threading.Thread(target=send, args=(port, path, token, expected, left, lock, sent, progress))
        for _ in range(clients)
    ]
    sent.started = time.time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent.ended = time.time()
    return sent


def send(
    port: int,
    path: str,
    token: str,
    expected: int,
    left: Iterator[tuple[bytes, str]],
    lock: threading.Lock,
    sent: Sent,
    progress: Progress | None,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while True:
        with lock:
            chosen = next(left, None)
        if chosen is None:
            break
        body, kind = chosen
        headers = {"Content-Type": kind} | ({"Authorization": f"Token {token}"} if token else {})
        while True:
            began = time.time()
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            took = time.time() - began
            if answer.status != http.HTTPStatus.TOO_MANY_REQUESTS:
                break
            sent.put_off += 1
            time.sleep(int(answer.headers["Retry-After"]))
        with lock:
            if answer.status == expected:
                sent.posts[str(json.loads(content)["id"])] = (began, took)
            else:
                sent.errors.append(f"{answer.status} {content[:200]!r}")
            if progress:
                progress.advance()
    connection.close()
