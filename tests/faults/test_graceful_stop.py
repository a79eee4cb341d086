"""Whoever stops an instance properly costs no image its turn: what a worker holds is finished first."""

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.faults.client import Client
from tests.faults.conftest import QUICK, MakeInstance
from tests.faults.instance import Instance, pictures, wait_until

IMAGES = 40
# A worker that is told to stop ends its turn of a second before.
MORE_THAN_A_TURN = 400
GAVE_UP = "SELECT count(*) FROM classifier_cellimage WHERE attempts > 1 OR (status = 'queued' AND attempts > 0)"


def many_waiting(instance: Instance, client: Client, count: int = IMAGES) -> None:
    case = client.open_case()
    for picture in pictures(count):
        client.upload(case, picture)


def nothing_was_given_up(instance: Instance) -> None:
    """Each image is as it was, or classified: none is held, none has a try behind it that came to nothing."""
    statuses = instance.statuses()
    assert set(statuses) <= {"queued", "classified"}, statuses
    assert instance.rows(GAVE_UP) == [(0,)]
    assert instance.predictions() == (statuses.get("classified", 0),) * 2


def held(instance: Instance) -> bool:
    return bool(instance.statuses().get("claimed"))


def tell_every_process(worker: psutil.Process) -> None:
    """As systemd does."""
    for process in [*worker.children(recursive=True), worker]:
        process.terminate()


def tell_twice(worker: psutil.Process) -> None:
    """The main process, as `make run` and `docker stop` do, and once more because it does not end at once."""
    worker.terminate()
    time.sleep(0.05)
    worker.terminate()


@pytest.mark.parametrize("tell", [tell_twice, tell_every_process])
def test_worker_that_is_told_to_stop_finishes_its_micro_batch(
    instance: Instance, tell: Callable[[psutil.Process], None]
) -> None:
    client = instance.client()
    instance.start("web")
    wait_until(lambda: "web" not in client.unready(), 30, "the web server answers")
    many_waiting(instance, client, MORE_THAN_A_TURN)
    instance.start("worker")
    wait_until(lambda: held(instance), 60, "images are claimed")

    began = time.monotonic()
    tell(psutil.Process(instance.processes["worker"].pid))
    assert instance.processes.pop("worker").wait(30) == 0
    took = time.monotonic() - began

    nothing_was_given_up(instance)
    left = instance.statuses().get("queued", 0)
    assert 0 < left < MORE_THAN_A_TURN, "nothing was in flight, or nothing of it was finished"
    print(f"The worker ended {took:.1f} s after it was told to; {left} of {MORE_THAN_A_TURN} images wait.")


def test_supervisor_that_is_told_to_stop_lets_the_micro_batch_finish(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    client = instance.client()
    instance.start("supervisor")
    wait_until(lambda: not client.unready(), 90, "the instance is ready")
    supervisor = psutil.Process(instance.processes["supervisor"].pid)
    [worker] = [child for child in supervisor.children() if " worker " in " ".join(child.cmdline())]
    worker.suspend()
    for child in worker.children():
        child.suspend()
    many_waiting(instance, client)
    for process in [*worker.children(), worker]:
        process.resume()
    wait_until(lambda: held(instance), 60, "images are claimed")

    began = time.monotonic()
    assert instance.stop("supervisor", 60) == 0
    took = time.monotonic() - began

    assert instance.living() == []
    nothing_was_given_up(instance)
    print(f"The instance was gone {took:.1f} s after it was told to stop.")


@pytest.mark.any_database
def test_second_ctrl_c_does_not_wait_and_loses_nothing(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    client = instance.client()
    instance.start("supervisor")
    wait_until(lambda: not client.unready(), 90, "the instance is ready")
    supervisor = psutil.Process(instance.processes["supervisor"].pid)
    [worker] = [child for child in supervisor.children() if " worker " in " ".join(child.cmdline())]
    [pool] = worker.children()
    pool.suspend()  # a micro-batch without end
    client.upload(client.open_case(), pictures(1)[0])

    began = time.monotonic()
    for _ in range(2):
        os.kill(supervisor.pid, signal.SIGINT)
        time.sleep(0.2)
    assert instance.processes.pop("supervisor").wait(20) == 0
    took = time.monotonic() - began

    assert instance.living() == []
    # What was in flight is as that of any killed worker: it is there, and nobody has made anything up.
    assert sum(instance.statuses().values()) == 1
    assert instance.predictions() == (0, 0)
    print(f"The second Ctrl-C ended everything within {took:.1f} s.")
