"""Two hundred programs that upload at the same moment: nothing lost, nothing doubled, and the web stays small."""

import http.client
import json
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import psutil
import pytest

from tests.faults.client import Client
from tests.faults.conftest import MakeInstance
from tests.faults.instance import Instance, wait_until
from tests.pictures import jpeg_of_cell
from tests.servers import RunningServer

AT_ONCE = 200
TRIES = 100
WEB_MEGABYTES = 400  # of one process, under load


@dataclass
class Sender:
    """Uploads until it is taken, as a well-behaved program does: after a 429 or 503 it waits as long as it is told."""

    client: Client
    case: str
    answers: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, seed: int) -> str:
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="cell.jpg"\r\n'
        picture = jpeg_of_cell(seed, (64, 64))
        body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + picture + f"\r\n--{boundary}--\r\n".encode()
        for _ in range(TRIES):
            status, wait, answer = self.post(body, f"multipart/form-data; boundary={boundary}")
            with self.lock:
                self.answers[f"{status} {answer.get('code', '')}".strip()] += 1
            if status in (200, 202):
                return str(answer["id"])
            assert status in (429, 503), answer
            assert wait, "a refusal for now says when to come again"
            time.sleep(wait)
        message = f"Picture {seed} was refused {TRIES} times."
        raise AssertionError(message)

    def post(self, body: bytes, kind: str) -> tuple[int, int, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.client.port, timeout=120)
        headers = {"Content-Type": kind, "Authorization": f"Token {self.client.token}"}
        try:
            connection.request("POST", f"/api/v1/cases/{self.case}/images/", body, headers)
            answer = connection.getresponse()
            return answer.status, int(answer.headers.get("Retry-After", 0)), json.loads(answer.read())
        finally:
            connection.close()


def web_megabytes(instance: Instance) -> int:
    """What the largest of the web server's processes holds."""
    master = psutil.Process(instance.processes["web"].pid)
    sizes = []
    for process in [master, *master.children(recursive=True)]:
        try:
            sizes.append(process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return max(sizes) // 1024**2


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "count", [400, pytest.param(2000, marks=pytest.mark.long), pytest.param(10_000, marks=pytest.mark.long)]
)
def test_two_hundred_at_a_time_are_all_taken_once(
    make_instance: MakeInstance, redis: RunningServer, count: int
) -> None:
    instance = make_instance(REDIS_URL=redis.url, UPLOADS_AT_ONCE="1")
    instance.start("web")
    client = instance.client()
    wait_until(lambda: "web" not in client.unready(), 60, "the web server answers")
    sender = Sender(client, client.open_case())
    before = web_megabytes(instance)
    largest, over = [before], threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            largest.append(web_megabytes(instance))

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(AT_ONCE) as programs:
            images = list(programs.map(sender.send, range(count)))
    finally:
        over.set()
        watching.join()
    took = time.monotonic() - began

    assert sender.answers["429 too_many_uploads"], "nobody was refused, so this would prove nothing"
    assert len(set(images)) == count
    [(rows, pictures)] = instance.rows("SELECT count(*), count(DISTINCT pixels_sha256) FROM classifier_cellimage")
    assert rows == pictures == count
    stored = [path for path in (instance.var / "media" / "originals").rglob("*.*") if path.is_file()]
    assert len(stored) == count
    assert max(largest) < WEB_MEGABYTES
    print(f"{count} uploads, {AT_ONCE} at a time: {took:.1f} s, {count / took:.0f} a second; {dict(sender.answers)}.")
    print(f"The largest web process: {before} MB before, {max(largest)} MB at most.")
