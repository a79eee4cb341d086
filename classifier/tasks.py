"""The doors through which Celery reaches the pipeline: each one call, no arguments."""

from typing import Any

from celery import shared_task
from celery.signals import worker_process_init

from classifier import heartbeat, pipeline


@shared_task(name="classifier.classify_queued")
def classify_queued() -> int:
    return pipeline.classify_queued()


@shared_task(name="classifier.sweep_expired_claims")
def sweep_expired_claims() -> int:
    return pipeline.sweep_expired_claims()


@worker_process_init.connect
def start_heartbeat(**_: Any) -> None:
    heartbeat.start()
