"""What stands on the log lines of a task: the task, the process that runs it, and the request that asked for it."""

import os
import socket
from typing import Any

import structlog
from django.dispatch import receiver
from django_structlog.celery.signals import bind_extra_task_metadata, modify_context_before_task_publish


@receiver(modify_context_before_task_publish)
def pass_on_the_request(context: dict[str, Any], **_: Any) -> None:
    """Of all that the sender's lines carry, a message takes the id of the request along, or of the task before it.

    Neither a user nor an address: a message lies in the broker. And no request's id goes beyond its own task, which
    may well wake others for other people's images.
    """
    kept = "parent_task_id" if "parent_task_id" in context else "request_id"
    passed_on = {kept: context[kept]} if kept in context else {}
    context.clear()
    context.update(passed_on)


@receiver(bind_extra_task_metadata)
def name_the_process(**_: Any) -> None:
    structlog.contextvars.bind_contextvars(worker=f"{socket.gethostname()}:{os.getpid()}")
