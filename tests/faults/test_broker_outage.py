"""Without the broker an upload is as good as ever: the rows are the queue, the broker only wakes the workers."""

import time

from tests.faults.instance import Instance, pictures, wait_until
from tests.servers import RunningServer


def test_images_uploaded_without_a_broker_are_classified_once_it_is_back(
    instance: Instance, redis: RunningServer
) -> None:
    client = instance.client()
    instance.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")
    case = client.open_case()

    redis.pause()
    assert client.unready()["broker"] == "broker_unavailable"
    started = time.monotonic()
    images = [client.upload(case, picture) for picture in pictures(10)]
    assert time.monotonic() - started < 20, "an upload must not wait for the broker"
    assert {client.image(image)["status"] for image in images} == {"queued"}

    redis.restart()
    wait_until(lambda: instance.statuses() == {"classified": 10}, 60, "all ten images are classified")
    assert instance.predictions() == (10, 10)
    assert not client.unready()


def test_broker_that_lost_its_data_delays_and_loses_nothing(instance: Instance, redis: RunningServer) -> None:
    client = instance.client()
    instance.start("web")
    wait_until(lambda: "web" not in client.unready(), 30, "the web server answers")
    case = client.open_case()
    for picture in pictures(5):
        client.upload(case, picture)

    redis.pause()
    assert redis.place is not None
    for kept in redis.place.glob("appendonlydir/*"):
        kept.unlink()
    redis.restart()
    instance.start("worker", "beat")
    wait_until(lambda: instance.statuses() == {"classified": 5}, 60, "all five images are classified")
