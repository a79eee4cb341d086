"""The Flask application of `bench.baseline_app`, under the same clients and on the same pictures."""

import http.client
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.through_http import CLIENTS
from bench.uploading import upload_all
from hematovision.embedded import die_with_parent
from ml.data_folder import WEIGHTS, data_folder
from ml.progress import say
from tests.faults.instance import ROOT, free_port, wait_until

START_SECONDS = 180


def baseline(pictures: Sequence[Path]) -> dict[str, Any]:
    """Images a second that it answers to as many clients as the platform has, and the median wait in ms."""
    port = free_port()
    command = [sys.executable, "-m", "bench.baseline_app", str(port), str(data_folder() / WEIGHTS)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent()
    )
    try:
        say("baseline: loading TensorFlow ...")
        wait_until(lambda: process.poll() is not None or answers(port), START_SECONDS, "the Flask application answers")
        upload_all(port, "/predict", pictures[:CLIENTS], clients=1, expected=200)
        say(f"baseline: {len(pictures)} pictures, {CLIENTS} clients ...")
        sent = upload_all(port, "/predict", pictures, clients=CLIENTS, expected=200)
    finally:
        process.terminate()
        process.wait(30)
    if sent.errors:
        message = f"The baseline refused {len(sent.errors)} pictures, the first: {sent.errors[0]}"
        raise RuntimeError(message)
    return {
        "n": len(sent.posts),
        "clients": CLIENTS,
        "images_per_second": len(sent.posts) / (sent.ended - sent.started),
        "median_ms": 1000 * statistics.median(took for _, took in sent.posts.values()),
    }


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.HTTPStatus.NOT_FOUND
    except OSError:
        return False
    finally:
        connection.close()
