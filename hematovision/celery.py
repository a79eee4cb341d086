"""The Celery application: how tasks travel. What they do stands in `classifier.pipeline`."""

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from django_structlog.celery.steps import DjangoStructLogInitStep

# Each of them listens to Celery's signals.
from hematovision import stopping, task_logs  # noqa: F401

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hematovision.settings")

app = Celery("hematovision")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["worker"].add(DjangoStructLogInitStep)


@setup_logging.connect
def use_django_logging(**_: Any) -> None:
    """Keep Celery from replacing the logging that Django's settings describe."""
    import logging.config

    from django.conf import settings

    logging.config.dictConfig(settings.LOGGING)
