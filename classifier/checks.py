"""Fail at boot, not at noon: settings that would lose or delay images stop the process with a sentence."""

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def claims_outlive_tasks(**_: Any) -> list[CheckMessage]:
    if settings.CLAIM_SECONDS > settings.CELERY_TASK_TIME_LIMIT:
        return []
    message = "CLAIM_SECONDS must exceed TASK_SECONDS: otherwise a live worker loses its images to another one."
    return [Error(message, hint="Raise CLAIM_SECONDS or lower TASK_SECONDS.", id="classifier.E001")]


@register()
def media_is_private_and_writable(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    media = Path(settings.MEDIA_ROOT)
    nearest = next(folder for folder in (media, *media.parents) if folder.exists())
    if not os.access(nearest, os.W_OK):
        hint = "Give the process write access, or set MEDIA_ROOT to another folder."
        found.append(Error(f"Originals can't be stored: {nearest} is not writable.", hint=hint, id="classifier.E002"))
    if Path(settings.STATIC_ROOT).is_relative_to(media) or settings.MEDIA_URL.strip("/"):
        message = "MEDIA_ROOT must not be reachable by a URL: originals leave only through a view."
        found.append(Error(message, hint="Move STATIC_ROOT and leave MEDIA_URL unset.", id="classifier.E003"))
    return found
