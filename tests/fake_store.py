"""A store that speaks as much S3 as a picture needs, for what no real one does at will: hang, or refuse one object."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# (method, name) -> "" (as it should), "hang", "twice" (carried out twice, the second answer counts) or a code of S3.
Fault = Callable[[str, str], str]
STATUS = {"NoSuchKey": 404, "PreconditionFailed": 412, "InternalError": 500}
HANG_SECONDS = 30


def sound(method: str, name: str) -> str:
    return ""


class FakeStore(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.fault: Fault = sound
        self.closing = threading.Event()

    @property
    def options(self) -> dict[str, str]:
        """What `BucketStorage` takes."""
        place = {"bucket": "bucket", "endpoint_url": f"http://127.0.0.1:{self.server_port}", "addressing": "path"}
        return {**place, "region": "us-east-1", "access_key": "key", "secret_key": "secret"}

    def asked_for(self, method: str, folder: str) -> int:
        return sum(asked == method and name.startswith(folder) for asked, name in self.asked)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeStore

    def log_message(self, *args: Any) -> None:
        """The test says what went wrong."""

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = self.path.partition("?")[0].removeprefix("/bucket").lstrip("/")
        self.server.asked.append((self.command, name))
        fault = self.server.fault(self.command, name)
        if fault == "hang":
            self.server.closing.wait(HANG_SECONDS)
            self.close_connection = True
            return
        if fault == "twice":
            self.outcome(name, body)
        status, content, headers = self.outcome(name, body) if fault in ("", "twice") else self.refusal(fault)
        self.send_response(status)
        for header, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_any  # noqa: N815 - the names that the server calls

    def refusal(self, code: str) -> tuple[int, bytes, dict[str, str]]:
        return STATUS.get(code, 403), f"<Error><Code>{code}</Code></Error>".encode(), {}

    def outcome(self, name: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        objects = self.server.objects
        if not name:
            return 200, b"", {}
        if self.command == "PUT":
            if self.headers["If-None-Match"] and name in objects:
                return self.refusal("PreconditionFailed")
            objects[name] = body, {key: value for key, value in self.headers.items() if key.startswith("x-amz-meta-")}
            return 200, b"", {}
        if self.command == "DELETE":
            objects.pop(name, None)
            return 204, b"", {}
        if name not in objects:
            return self.refusal("NoSuchKey")
        return 200, *objects[name]


@contextmanager
def fake_store() -> Iterator[FakeStore]:
    store = FakeStore()
    thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield store
    finally:
        store.closing.set()
        store.shutdown()
        thread.join()
        store.server_close()
