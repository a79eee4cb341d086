"""The doors through which Celery reaches the machine's side: no arguments, the rows say what there is to do."""

from typing import Any

from celery import shared_task
from celery.signals import worker_process_init

from classifier import heartbeat, model_trial, pipeline


@shared_task(name="classifier.classify_queued")
def classify_queued() -> int:
    # A trial has its turn only when nothing is queued.
    return pipeline.classify_queued() or model_trial.continue_trial()


@shared_task(name="classifier.sweep_expired_claims")
def sweep_expired_claims() -> int:
    freed = pipeline.sweep_expired_claims()
    model_trial.wake_for_trials()
    return freed


@worker_process_init.connect
def start_heartbeat(**_: Any) -> None:
    heartbeat.start()
