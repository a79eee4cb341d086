"""Workers that die while they tell, and receivers that hang: nothing is lost, and no image waits for it."""

import json
import socket
import time
from collections import Counter
from typing import Any

from tests.faults.client import Client
from tests.faults.conftest import QUICK, MakeInstance
from tests.faults.instance import Instance, pictures, wait_until
from tests.receiver import Received, Receiver, running, talking
from tests.servers import RunningServer

IMAGES = 40
WAITING = "SELECT count(*) FROM classifier_webhookmessage WHERE next_try_at IS NOT NULL"


def telling(make_instance: MakeInstance, redis: RunningServer, url: str) -> tuple[Instance, Client]:
    """An instance with web and beat, one endpoint, and pictures that wait for a worker."""
    quick = {**QUICK, "WEBHOOK_SECONDS": "1", "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    instance = make_instance(REDIS_URL=redis.url, **quick)
    instance.start("web", "beat")
    client = instance.client()
    wait_until(lambda: "web" not in client.unready(), 30, "the web server answers")
    admin = Client(instance.port, instance.manage("create_token", "admin@demo.example").splitlines()[-1])
    body = json.dumps({"url": url, "events": ["image.classified"]}).encode()
    status, answer = admin.call("POST", "/api/v1/webhooks/", body)
    assert status == 201, answer
    case = client.open_case()
    for picture in pictures(IMAGES):
        client.upload(case, picture)
    return instance, client


def waiting(instance: Instance) -> int:
    return int(instance.rows(WAITING)[0][0])


def test_worker_killed_while_it_tells_loses_no_message_and_keeps_the_order(
    make_instance: MakeInstance, redis: RunningServer
) -> None:
    def slowly(_: Received) -> int:
        time.sleep(0.1)
        return 204

    with running(Receiver(answer=slowly)) as receiver:
        instance, _ = telling(make_instance, redis, receiver.url)
        instance.start("worker")
        wait_until(lambda: len(receiver.received) >= 5, 90, "some messages have arrived")
        instance.kill("worker")
        assert waiting(instance), "everything was sent, so this would prove nothing"
        before = len(receiver.received)
        instance.start("worker")
        wait_until(lambda: instance.statuses() == {"classified": IMAGES}, 120, "every image is classified")
        took = wait_until(lambda: not waiting(instance), 120, "every message is delivered")
    times: Counter[Any] = Counter(request.json["content"]["image"] for request in receiver.received)
    assert len(times) == IMAGES
    # At least once, and again only what the dead worker held.
    assert sum(times.values()) - IMAGES <= 8
    order = list(dict.fromkeys(request.json["at"] for request in receiver.received))
    assert order == sorted(order)
    print(f"{before} had arrived before the worker was killed; the rest had {took:.1f} s after all were classified.")


def test_receiver_that_hangs_delays_no_image(make_instance: MakeInstance, redis: RunningServer) -> None:
    def hang(_: socket.socket) -> None:
        time.sleep(5)

    with talking(hang) as url:
        instance, client = telling(make_instance, redis, url)
        instance.start("worker")
        wait_until(lambda: instance.statuses() == {"classified": IMAGES}, 60, "every image is classified")
        wait_until(
            lambda: instance.rows("SELECT count(*) FROM classifier_webhookmessage WHERE last_code = 'timed_out'")[0][0],
            30,
            "a message was tried in vain",
        )
        image = client.upload(client.open_case(), pictures(IMAGES + 1)[-1])
        began = time.monotonic()
        _, answer = client.call("GET", f"/api/v1/images/{image}/?wait=20")
        assert answer["status"] == "classified"
        assert time.monotonic() - began < 10
        assert waiting(instance) == IMAGES + 1
