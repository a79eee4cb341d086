"""Mixed load for a while: `python -m bench soak [--minutes 20]`; what grows with the hours would show here.

Scripts upload and poll, batches come in, people look at pages, review and export. Every ten seconds all processes are
looked at: memory, threads, open files, temporary files, the broker's keys. Growth is the median of the last quarter
over that of the second; the first is left to caches that fill.
"""

import io
import itertools
import json
import random
import statistics
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from bench.instance import MEBIBYTE, MeasuredInstance, Servers, instance
from bench.uploading import multipart
from hematovision.embedded import ask
from ml.progress import say
from tests.faults.client import Client

LOOK_SECONDS = 10.0
PICTURES_A_CASE = 40
PICTURES_A_BATCH = 60
PATIENCE_SECONDS = 60


@dataclass
class Load:
    """What all actors share: when to stop, the pictures, what was done and what went wrong."""

    made: MeasuredInstance
    pictures: Iterator[Path]
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)

    def picture(self) -> bytes:
        with self.lock:
            return next(self.pictures).read_bytes()

    def count(self, what: str) -> None:
        with self.lock:
            self.done[what] = self.done.get(what, 0) + 1

    def latest_case(self) -> str:
        with self.lock:
            return random.choice(self.cases[-5:])


Act = Callable[[Load], Iterator[float]]


def keep_acting(load: Load, act: Act) -> None:
    """Let an actor go on until the end: it yields the seconds that it pauses."""
    try:
        for pause in act(load):
            if load.over.wait(pause):
                return
    except (AssertionError, OSError, requests.RequestException, ValueError, KeyError, RuntimeError) as error:
        with load.lock:
            load.errors.append(f"{act.__name__}: {type(error).__name__}: {error}"[:300])


# --- Who does something --------------------------------------------------------------------------------------------
def a_script_uploads(load: Load) -> Iterator[float]:
    client = load.made.client()
    while True:
        case = client.open_case()
        with load.lock:
            load.cases.append(case)
        for number in range(PICTURES_A_CASE):
            image = client.upload(case, load.picture())
            load.count("uploads")
            if number % 8 == 0:
                # Few may wait at the same time; the others are answered at once and come again.
                came = time.monotonic()
                while not client.call("GET", f"/api/v1/images/{image}/?wait=20")[1]["prediction"]:
                    require(time.monotonic() - came < PATIENCE_SECONDS, "a picture is not classified")
                    yield 1
                load.count("waits")
            yield 0.1


def batches_come_in(load: Load) -> Iterator[float]:
    client = load.made.client()
    while True:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as members:
            for number in range(PICTURES_A_BATCH):
                members.writestr(f"{number}.jpg", load.picture())
        body, kind = multipart(
            archive.getvalue(), field="archive", filename="smear.zip", content_type="application/zip"
        )
        status, batch = client.call("POST", "/api/v1/batches/", body, kind)
        require(status == 202, batch)
        while batch["state"] != "finished":
            yield 2
            status, batch = client.call("GET", f"/api/v1/batches/{batch['id']}/")
            require(status == 200, batch)
        require(batch["classified"] + len(batch["refused"]) == PICTURES_A_BATCH, batch["state"])
        load.count("batches")
        yield 30


def a_reader_looks(load: Load) -> Iterator[float]:
    session = signed_in(load.made, "reader@demo.example")
    while True:
        case = load.latest_case() if load.cases else ""
        pages = ["", "cases/", "images/", "batches/", "notifications/"]
        pages += [f"cases/{case}/", f"cases/{case}/tiles/", f"cases/{case}/differential/"] if case else []
        for page in pages:
            looked_at(load, session, page)
            yield 0.3
        for image in pictures_of(load, case) if case else []:
            for part in ("", "thumbnail/", "heat-map/", "file/"):
                looked_at(load, session, f"images/{image}/{part}", also=(404,) if part else ())
            yield 0.3


def a_reader_reviews(load: Load) -> Iterator[float]:
    token = load.made.manage("create_token", "reader@demo.example").splitlines()[-1]
    client = Client(load.made.port, token)
    while True:
        for image in pictures_of(load, load.latest_case()) if load.cases else []:
            prediction = client.image(image)["prediction"]
            said = (
                {"verdict": "CONFIRMED"} if prediction["label"] else {"verdict": "CORRECTED", "final_label": "artefact"}
            )
            status, answer = client.call("POST", f"/api/v1/images/{image}/reviews/", json.dumps(said).encode())
            require(status == 201, answer)
            load.count("reviews")
            yield 0.5
        yield 1


def an_auditor_looks(load: Load) -> Iterator[float]:
    session = signed_in(load.made, "auditor@demo.example")
    while True:
        for page in ("admin/", "admin/accounts/auditevent/", "admin/classifier/prediction/", "exports/", "models/"):
            looked_at(load, session, page)
            yield 3


def require(true: bool, what: object) -> None:
    if not true:
        raise RuntimeError(str(what))


def signed_in(made: MeasuredInstance, email: str) -> requests.Session:
    users = dict(line.split()[:2] for line in (made.var / "demo-users").read_text().splitlines())
    session = requests.Session()
    page = f"http://127.0.0.1:{made.port}/accounts/login/"
    session.get(page, timeout=30)
    answer = session.post(
        page,
        {"login": email, "password": users[email], "csrfmiddlewaretoken": session.cookies["hematovision_csrf"]},
        headers={"Referer": page},
        timeout=30,
    )
    require(answer.ok and "accounts/login" not in answer.url, f"{email} could not sign in")
    return session


def looked_at(load: Load, session: requests.Session, page: str, also: Sequence[int] = ()) -> None:
    answer = session.get(f"http://127.0.0.1:{load.made.port}/{page}", timeout=30)
    require(answer.status_code in (200, *also), f"a page answers {answer.status_code}: {page.partition('/')[0]}")
    load.count("pages")


def pictures_of(load: Load, case: str) -> list[str]:
    """Some classified images of a case, asked of the API."""
    _, page = load.made.client().call("GET", f"/api/v1/images/?case={case}&status=classified")
    return [image["id"] for image in page["results"]][:5]


ACTORS: tuple[Act, ...] = (
    *(a_script_uploads,) * 2,
    batches_come_in,
    *(a_reader_looks,) * 2,
    a_reader_reviews,
    an_auditor_looks,
)


# --- What is looked at ---------------------------------------------------------------------------------------------
def figures(made: MeasuredInstance, temporary: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("web", "worker", "beat"):
        tree = made.tree(name)
        found[f"{name}_rss_mb"] = sum(each.memory_info().rss for each in tree) / MEBIBYTE
        found[f"{name}_threads"] = sum(each.num_threads() for each in tree)
        found[f"{name}_open_files"] = sum(each.num_fds() for each in tree)
    found["temporary_files"] = sum(1 for _ in temporary.rglob("*"))
    broker = Path(made.servers["broker"].url.removeprefix("redis+socket://"))
    found["broker_keys"] = float(ask(broker, "DBSIZE").removeprefix(":"))
    [memory] = [line for line in ask(broker, "INFO memory", size=16384).splitlines() if line.startswith("used_memory:")]
    found["broker_mb"] = int(memory.partition(":")[2]) / MEBIBYTE
    found["queued"] = made.statuses().get("queued", 0)
    return found


def soak(pictures: Sequence[Path], servers: Servers, database: str, *, minutes: float) -> dict[str, Any]:
    """Run the load; returns what was done, every error, and of each figure the first, the last and the growth."""
    with instance(servers, database) as made:
        temporary = made.var / "temporary"
        temporary.mkdir()
        made.environment["TMPDIR"] = str(temporary)
        made.start_all()
        load = Load(made, itertools.cycle(pictures))
        threads = [threading.Thread(target=keep_acting, args=(load, act), daemon=True) for act in ACTORS]
        for thread in threads:
            thread.start()
        ends, series = time.monotonic() + 60 * minutes, []
        while time.monotonic() < ends:
            time.sleep(min(LOOK_SECONDS, max(0.0, ends - time.monotonic())))
            series.append(figures(made, temporary))
            left = max(0.0, ends - time.monotonic())
            say(
                f"{database}: soak, {load.done.get('uploads', 0)} uploads, {len(load.errors)} errors, {left:.0f} s left"
            )
        load.over.set()
        for thread in threads:
            thread.join(60)
        logged = [line for name in ("web", "worker", "beat") for line in faults(made.output(name))]
        return {
            "minutes": minutes,
            "done": load.done,
            "errors": load.errors,
            "logged_errors": logged[:20],
            "figures": {name: growth_of([each[name] for each in series]) for name in series[0]},
        }


def faults(output: str) -> list[str]:
    """The lines of a log that speak of a fault."""
    return [line[:300] for line in output.splitlines() if '"level": "error"' in line or "[error" in line]


def growth_of(values: Sequence[float]) -> dict[str, float]:
    quarter = max(1, len(values) // 4)
    second, last = statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])
    return {"first": values[0], "second_quarter": second, "last_quarter": last, "most": max(values)}
