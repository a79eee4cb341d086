"""A batch in the middle of which everything dies: no picture lost, none doubled, and it ends by itself. And a person
never waits behind one.
"""

import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from hematovision.embedded import die_with_parent
from tests.faults.client import Client
from tests.faults.conftest import QUICK, MakeInstance
from tests.faults.instance import ROOT, Instance, pictures, wait_until
from tests.servers import RunningServer
from tests.zips import cells, zip_of

PROMISED_SECONDS = 10


def hand_in(client: Client, files: dict[str, bytes]) -> str:
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="archive"; filename="cells.zip"\r\n'
    body = f"{head}Content-Type: application/zip\r\n\r\n".encode() + zip_of(files) + f"\r\n--{boundary}--\r\n".encode()
    status, batch = client.call("POST", "/api/v1/batches/", body, f"multipart/form-data; boundary={boundary}")
    assert status == 202, batch
    return str(batch["id"])


def batch_of(client: Client, batch: str) -> dict[str, Any]:
    status, body = client.call("GET", f"/api/v1/batches/{batch}/")
    assert status == 200, body
    return body


def checked(instance: Instance) -> int:
    return int(instance.rows("SELECT sum(members_checked) FROM classifier_batch")[0][0] or 0)


def classified(instance: Instance) -> int:
    return instance.statuses().get("classified", 0)


def ends_whole(instance: Instance, client: Client, batch: str, count: int, refused: int, seconds: float) -> None:
    """Finished by itself; every picture is one image with one prediction, every file has one line."""
    took = wait_until(lambda: batch_of(client, batch)["state"] == "finished", seconds, "the batch is finished")
    body = batch_of(client, batch)
    assert {key: body[key] for key in ("total", "queued", "classified", "failed")} == {
        "total": count,
        "queued": 0,
        "classified": count,
        "failed": 0,
    }
    assert len(body["refused"]) == refused
    assert instance.predictions() == (count, count)
    [(lines, different)] = instance.rows("SELECT count(*), count(DISTINCT number) FROM classifier_batchmember")
    assert lines == different == count + refused
    assert not list((instance.var / "media").rglob("*.zip")), "the archive is removed"
    told = instance.rows("SELECT count(*) FROM classifier_notification WHERE kind = 'batch_finished'")
    assert told == [(1,)]
    print(f"{count} images: finished {took:.1f} s after the last kill.")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", [120, pytest.param(1000, marks=pytest.mark.long)])
def test_batch_survives_the_death_of_worker_beat_broker_and_web(
    instance: Instance, redis: RunningServer, count: int
) -> None:
    client = instance.client()
    files = {**cells(count), "bad.jpg": b"no picture", "empty.jpg": b""}
    instance.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")
    batch = hand_in(client, files)

    # In the middle of the check.
    wait_until(lambda: checked(instance) > count // 4, 120, "a quarter is checked")
    instance.kill("worker")
    assert checked(instance) < count, "the check was over, so this would prove nothing"
    instance.kill("web")
    instance.start("worker", "web")

    # In the middle of the classification; then the broker, which forgets every wake-up.
    wait_until(lambda: classified(instance) > count // 4, 300, "a quarter is classified")
    instance.kill("worker")
    instance.kill("beat")
    assert classified(instance) < count, "everything was classified, so this would prove nothing"
    redis.pause()
    assert redis.place is not None
    for kept in redis.place.glob("appendonlydir/*"):
        kept.unlink()
    redis.restart()
    instance.start("worker", "beat")
    wait_until(lambda: classified(instance) > count // 2, 300, "half is classified")
    instance.kill_pool_child()
    ends_whole(instance, client, batch, count, refused=2, seconds=300 + count / 4)


@pytest.mark.timeout(600)
def test_batch_survives_the_death_of_everything_at_once(make_instance: MakeInstance) -> None:
    """As by a power cut, with the embedded broker: in the middle of the check, then of the classification."""
    count = 90
    instance = make_instance(**QUICK)
    client = instance.client()

    def start() -> None:
        instance.start("supervisor")
        wait_until(lambda: not client.unready(), 90, "the instance is ready")

    def kill_everything() -> None:
        instance.kill("supervisor")
        wait_until(lambda: not instance.living(), 20, "no process of the instance is left")

    start()
    batch = hand_in(client, {**cells(count), "bad.jpg": b"no picture"})
    wait_until(lambda: checked(instance) > count // 4, 60, "a quarter is checked")
    kill_everything()
    assert checked(instance) < count, "the check was over, so this would prove nothing"
    start()
    wait_until(lambda: classified(instance) > count // 4, 120, "a quarter is classified")
    kill_everything()
    assert classified(instance) < count, "everything was classified, so this would prove nothing"
    start()
    ends_whole(instance, client, batch, count, refused=1, seconds=180)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [240, pytest.param(5000, marks=pytest.mark.long)])
def test_one_picture_of_a_person_never_waits_behind_a_batch(instance: Instance, count: int) -> None:
    """While the archive is checked, while it is classified, and while a second archive is checked beside it."""
    client = instance.client()
    instance.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")
    case = client.open_case()
    batch = hand_in(client, cells(count))
    waits = []

    def one_picture(number: int) -> None:
        picture = cells(1, first=1_000_000 + number)["cell-0000.jpg"]
        started = time.monotonic()
        image = client.upload(case, picture)
        wait_until(lambda: client.image(image)["status"] == "classified", 60, "the picture is classified")
        waits.append(time.monotonic() - started)

    wait_until(lambda: checked(instance) > 0, 60, "the check has begun")
    one_picture(0)
    assert checked(instance) < count, "the check was over, so this would prove nothing"
    wait_until(lambda: classified(instance) > 8, 300, "the batch is being classified")
    one_picture(1)
    assert batch_of(client, batch)["state"] == "running", "the batch was over, so this would prove nothing"
    second = hand_in(client, cells(60, first=500_000))
    one_picture(2)
    print(f"A picture took {', '.join(f'{seconds:.1f} s' for seconds in waits)}.")
    assert max(waits) < PROMISED_SECONDS

    def both_done() -> bool:
        return {batch_of(client, each)["state"] for each in (batch, second)} == {"finished"}

    wait_until(both_done, 300 + count / 4, "both batches are finished")
    assert instance.predictions() == (count + 63, count + 63)


def test_command_line_batch_that_is_killed_goes_on_and_is_taken_up_again(
    make_instance: MakeInstance, redis: RunningServer
) -> None:
    instance = make_instance(REDIS_URL=redis.url, **QUICK)
    folder = instance.var / "slide"
    folder.mkdir()
    for number, picture in enumerate(pictures(40)):
        (folder / f"cell {number}.jpg").write_bytes(picture)
    client = instance.client()
    instance.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")
    table = instance.var / "out.csv"
    command = ("classify_folder", str(folder), "--accession", "F-1", "--csv", str(table))
    instance.processes["manage"] = subprocess.Popen(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=instance.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=die_with_parent(),
    )
    wait_until(lambda: checked(instance) > 10, 60, "some files are handed in")
    instance.kill("manage")
    assert not table.exists()
    wait_until(lambda: instance.rows("SELECT count(finished_at) FROM classifier_batch") == [(1,)], 60, "the batch ends")
    instance.manage(*command)
    assert instance.predictions() == (40, 40)
    lines = table.read_text("utf-8-sig").splitlines()
    assert len(lines) == 41
    assert all(",classified," in line for line in lines[1:])
    assert instance.statuses() == {"classified": 40}
