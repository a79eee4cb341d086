"""What `make run` starts, as a whole: it becomes ready, classifies, mends itself, and leaves nothing behind."""

import os
import re
import signal

import psutil

from tests.faults.conftest import QUICK, MakeInstance
from tests.faults.instance import Instance, pictures, wait_until


def start(instance: Instance) -> float:
    client = instance.client()
    instance.start("supervisor")
    supervisor = instance.processes["supervisor"]

    def ready() -> bool:
        assert supervisor.poll() is None, instance.output("supervisor")
        return not client.unready()

    return wait_until(ready, 90, "the instance is ready")


def process_of(instance: Instance, word: str) -> psutil.Process:
    """The child of the supervisor that the word names."""
    supervisor = psutil.Process(instance.processes["supervisor"].pid)
    [found] = [child for child in supervisor.children() if word in " ".join(child.cmdline())]
    return found


def test_instance_starts_classifies_stops_and_keeps_its_data(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    start(instance)
    said = instance.output("supervisor")
    assert f"http://127.0.0.1:{instance.port}\n" in said
    assert len(re.findall(r"^(technologist|reader|auditor|admin)@demo\.example \S+$", said, re.MULTILINE)) == 4
    assert said.index("admin@demo.example") < said.index("Starting")
    assert (instance.var / "run.log").read_text() in said

    client = instance.client()
    image = client.upload(client.open_case(), pictures(1)[0])
    wait_until(lambda: client.image(image)["status"] == "classified", 30, "the image is classified")

    assert len(instance.living()) >= 6
    assert instance.stop("supervisor") == 0
    assert instance.living() == []
    assert not (instance.var / "broker-url").exists()

    took = start(instance)
    assert client.image(image)["status"] == "classified"
    assert instance.predictions() == (1, 1)
    print(f"The second start took {took:.1f} s.")
    instance.processes["supervisor"].send_signal(signal.SIGINT)
    assert instance.processes.pop("supervisor").wait(30) == 0
    assert instance.living() == []


def test_every_process_that_dies_is_started_again(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    start(instance)
    client = instance.client()
    for word, name in {"valkey": "broker", " worker ": "worker", " beat ": "beat", "gunicorn": "web server"}.items():
        process_of(instance, word).kill()
        announced = f"The {name} was ended by SIGKILL; it starts again in 1 s."
        wait_until(lambda text=announced: text in instance.output("supervisor"), 10, announced)
    image = client.upload(client.open_case(), pictures(1)[0])
    wait_until(lambda: client.image(image)["status"] == "classified", 60, "an image is classified afterwards")
    wait_until(lambda: not client.unready(), 60, "the instance is ready again")


def test_nothing_survives_a_killed_supervisor_and_the_next_start_is_clean(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    start(instance)
    supervisor = instance.processes.pop("supervisor")
    os.kill(supervisor.pid, signal.SIGKILL)  # the supervisor alone, not its group
    supervisor.wait()
    wait_until(lambda: instance.living() == [], 15, "no process of the instance is left")
    start(instance)


def test_second_supervisor_of_an_instance_is_refused(make_instance: MakeInstance) -> None:
    instance = make_instance(**QUICK)
    start(instance)
    first = instance.processes.pop("supervisor")
    port, instance.port = instance.port, 1 + instance.port % 60000
    instance.start("supervisor")
    assert instance.processes.pop("supervisor").wait(20) == 2
    assert f"running already (process {first.pid})" in instance.output("supervisor")
    instance.port = port
    instance.processes["supervisor"] = first
    assert not instance.client().unready()
