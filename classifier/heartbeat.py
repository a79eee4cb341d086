"""A worker process tells that it is there, and which model it holds."""

import os
import socket
import threading
import time
from datetime import timedelta

import structlog
from django.db import connection
from django.db.models.functions import Now

from classifier.models import WorkerHeartbeat
from classifier.pipeline import load_model
from ml.errors import ModelUnavailable

logger = structlog.get_logger(__name__)
BEAT_SECONDS = 10
# Long enough for a beat that had to wait for a busy machine, short enough that a dead worker is soon missed.
SEEN_WITHIN = timedelta(seconds=45)
KEPT_FOR = timedelta(days=1)


def start() -> None:
    """Beat in a thread of its own: a worker may start slowly or be busy, and is still seen."""
    threading.Thread(target=beat_for_ever, name="heartbeat", daemon=True).start()


def beat_for_ever() -> None:
    while True:
        try:
            beat()
        # A worker that can work must stay visible, whatever one beat ran into.
        except Exception as error:  # noqa: BLE001
            logger.warning("heartbeat_not_written", error=type(error).__name__)
        finally:
            connection.close()
        time.sleep(BEAT_SECONDS)


def beat() -> None:
    """Write this process's row; loads the model on the way, so that the first image need not wait for it."""
    state = {"model_sha256": "", "model_code": ""}
    try:
        state["model_sha256"] = load_model().version.sha256
    except ModelUnavailable as error:
        state["model_code"] = error.code
    WorkerHeartbeat.objects.update_or_create(
        host=socket.gethostname()[:120], pid=os.getpid(), defaults={**state, "seen_at": Now()}
    )
    WorkerHeartbeat.objects.filter(seen_at__lt=Now() - KEPT_FOR).delete()
