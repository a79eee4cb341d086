"""The doors through which Celery reaches accounts."""

from celery import shared_task

from accounts import seals


@shared_task(name="accounts.seal_audit")
def seal_audit() -> int:
    return seals.seal_events()
