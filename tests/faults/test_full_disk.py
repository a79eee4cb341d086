"""No room for a picture: a sentence for its sender, nothing half written, and on it goes once there is room."""

import resource
import time
from io import BytesIO
from pathlib import Path

import psutil
from PIL import Image

from tests.faults.client import Client
from tests.faults.instance import Instance, pictures, wait_until

MEGABYTE = 1024**2
# Above what the database's files ever have here, below what the big picture needs.
LARGEST_FILE = 12 * MEGABYTE


def big_picture() -> bytes:
    """About 17 MB of noise, which nothing compresses."""
    noise = Image.effect_noise((2400, 2400), 120)
    picture = Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180)))
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    assert LARGEST_FILE < buffer.tell() < 25 * MEGABYTE
    return buffer.getvalue()


def originals(instance: Instance) -> list[Path]:
    return [path for path in (instance.var / "media" / "originals").rglob("*") if path.is_file()]


def refused(client: Client, case: str, picture: bytes) -> dict[str, object]:
    head = '--b\r\nContent-Disposition: form-data; name="file"; filename="cell.png"\r\n\r\n'
    body = head.encode() + picture + b"\r\n--b--\r\n"
    status, problem = client.call("POST", f"/api/v1/cases/{case}/images/", body, "multipart/form-data; boundary=b")
    assert status == 503, problem
    return problem


def test_full_disk_refuses_with_a_sentence_and_keeps_nothing_half_written(instance: Instance) -> None:
    """By the largest file that the web processes may write: for them it is a disk on which just so much is free."""
    client = instance.client()
    instance.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")
    case = client.open_case()
    small, big = pictures(1)[0], big_picture()
    web = psutil.Process(instance.processes["web"].pid)
    everybody = [web, *web.children()]
    for process in everybody:
        process.rlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, resource.RLIM_INFINITY))

    problem = refused(client, case, big)

    assert problem["code"] == "storage_full"
    assert "no room left" in str(problem["detail"])
    assert originals(instance) == []
    assert instance.rows("SELECT count(*) FROM classifier_cellimage") == [(0,)]
    image = client.upload(case, small)
    wait_until(lambda: client.image(image)["status"] == "classified", 60, "a picture that fits is classified")

    for process in everybody:
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    began = time.monotonic()
    again = client.upload(case, big)
    print(f"With room again the same picture was taken in {time.monotonic() - began:.1f} s.")
    assert client.image(again)["id"] == again
    assert len(originals(instance)) == 2
    [(stored,)] = instance.rows("SELECT sum(stored_bytes) FROM classifier_cellimage")
    assert sum(path.stat().st_size for path in originals(instance)) == stored
