"""A worker that is killed loses no image and doubles none."""

from collections.abc import Callable

import pytest

from tests.faults.client import Client
from tests.faults.conftest import MakeInstance
from tests.faults.instance import Instance, pictures, wait_until
from tests.servers import RunningServer

IMAGES = 50
PROMISED_SECONDS = 120


def upload(instance: Instance, client: Client, count: int = IMAGES) -> None:
    """Put images into the queue while no worker runs, so that all of them are in flight when one starts."""
    instance.start("web", "beat")
    wait_until(lambda: "web" not in client.unready(), 30, "the web server answers")
    case = client.open_case()
    for picture in pictures(count):
        client.upload(case, picture)
    assert instance.statuses() == {"queued": count}


def kill_in_flight(instance: Instance, kill: Callable[[], None]) -> None:
    """Kill while images are claimed; where a batch was completed in that very moment, there is a next one."""
    wait_until(lambda: instance.statuses().get("claimed"), 60, "images are claimed")
    kill()
    assert instance.statuses().get("claimed"), "nothing was in flight, so this would prove nothing"


def all_classified_once(instance: Instance, count: int = IMAGES) -> None:
    took = wait_until(
        lambda: instance.statuses() == {"classified": count}, PROMISED_SECONDS, "every image is classified"
    )
    assert instance.predictions() == (count, count)
    print(f"All {count} images were classified {took:.1f} s after the restart.")


def test_killed_worker_loses_no_image_and_doubles_none(instance: Instance) -> None:
    upload(instance, instance.client())
    instance.start("worker")
    kill_in_flight(instance, lambda: instance.kill("worker"))
    instance.start("worker")
    all_classified_once(instance)


def test_killed_pool_child_loses_no_image_and_doubles_none(instance: Instance) -> None:
    upload(instance, instance.client())
    instance.start("worker")
    kill_in_flight(instance, instance.kill_pool_child)
    all_classified_once(instance)


@pytest.mark.long
def test_worker_killed_in_front_of_a_living_one_loses_nothing(instance: Instance) -> None:
    """Two workers share the queue; the one that lives on takes over, without any restart."""
    upload(instance, instance.client())
    instance.start("worker")
    doomed = instance.processes.pop("worker")
    instance.start("worker")
    survivor = instance.processes.pop("worker")
    instance.processes.update(worker=doomed, survivor=survivor)
    kill_in_flight(instance, lambda: instance.kill("worker"))
    all_classified_once(instance)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [1, 3])
def test_default_periods_keep_the_promise_of_two_minutes(
    make_instance: MakeInstance, redis: RunningServer, kills: int
) -> None:
    """With the claims and sweeps of a real instance: two minutes after the last kill everything is classified."""
    instance = make_instance(REDIS_URL=redis.url)
    upload(instance, instance.client())
    for _ in range(kills):
        instance.start("worker")
        kill_in_flight(instance, lambda: instance.kill("worker"))
    instance.start("worker")
    all_classified_once(instance)
