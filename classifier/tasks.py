"""The doors through which Celery reaches the machine's side: no arguments, the rows say what there is to do."""

from typing import Any

from celery import shared_task
from celery.signals import worker_process_init
from django.db.models.functions import Now

from classifier import (
    batch_steps,
    emergency_mails,
    export_steps,
    heartbeat,
    model_trial,
    pipeline,
    retention_steps,
    stored_files,
    webhook_keeping,
    webhook_sending,
)
from classifier.models import IdempotentRequest

# A full queue is worked on for so long before the next message is fetched: sweeps, seals and a stop wait no longer.
TURN_SECONDS = 1.0


@shared_task(name="classifier.classify_queued")
def classify_queued() -> int:
    classified = pipeline.classify_queued(TURN_SECONDS)
    if not classified:
        batch_steps.finish_batches()
    # Archives are checked, and exports written, between the micro-batches of others; a trial has its turn only when
    # nothing is queued. One of them a turn, so that one wake-up leads to one.
    checked = batch_steps.check_archives(classified) or export_steps.continue_export(classified)
    return checked or classified or model_trial.continue_trial()


@shared_task(name="classifier.sweep_expired_claims")
def sweep_expired_claims() -> int:
    freed = pipeline.sweep_expired_claims()
    batch_steps.sweep_batches()
    export_steps.sweep_exports()
    model_trial.wake_for_trials()
    emergency_mails.wake_if_due()
    return freed


@shared_task(name="classifier.forget_idempotent_requests")
def forget_idempotent_requests() -> int:
    """Answers that were kept for their time: they may hold patient text."""
    forgotten, _ = IdempotentRequest.objects.filter(expires_at__lte=Now()).delete()
    return forgotten


@shared_task(name="classifier.forget_webhook_messages")
def forget_webhook_messages() -> int:
    return webhook_keeping.forget_old_messages()


@shared_task(name="classifier.keep_stored_files")
def keep_stored_files() -> int:
    """Remove what retention rules no longer keep, and check some files: a second each, so that no picture waits."""
    removed = retention_steps.remove_due_pictures()
    stored_files.check_some()
    return removed


@shared_task(name="classifier.send_emergency_mails")
def send_emergency_mails() -> int:
    return emergency_mails.send_due()


@shared_task(name="classifier.send_webhooks")
def send_webhooks() -> None:
    # In a thread of its own, which also looks by itself: a slow receiver delays no image.
    webhook_sending.start()


@worker_process_init.connect
def start_threads(**_: Any) -> None:
    heartbeat.start()
    webhook_sending.start()
