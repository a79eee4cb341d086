"""A process of the worker's pool lets its task finish when it is told to stop.

Whoever stops a worker by its main process (`make run`, `docker stop`) never gets here: Celery waits for the task.
systemd and others send SIGTERM to every process of the service at once, and a pool process would end in the middle of
its micro-batch: nothing would be lost, but all of it would be done again.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

from celery.signals import task_postrun, task_prerun

# The result must reach the main process before this one goes.
LAST_WORDS_SECONDS = 1.0


class Stop:
    """Whether this process was told to stop while it had a task. An idle one ends as Celery has it."""

    def __init__(self) -> None:
        self.wanted = False
        self.handler: Any = None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True

    def begin(self) -> None:
        self.wanted = False
        # Python lets the main thread alone change handlers; in a pool process that is where tasks run.
        if threading.current_thread() is threading.main_thread():
            self.handler = signal.signal(signal.SIGTERM, self.on_signal)

    def end(self) -> None:
        if self.handler is not None:
            signal.signal(signal.SIGTERM, self.handler)
            self.handler = None
        if self.wanted:
            timer = threading.Timer(LAST_WORDS_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
            timer.daemon = True
            timer.start()


stop = Stop()


@task_prerun.connect
def task_begins(**_: Any) -> None:
    stop.begin()


@task_postrun.connect
def task_ends(**_: Any) -> None:
    stop.end()
