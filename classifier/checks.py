"""Fail at boot, not at noon: settings that would lose or delay images stop the process with a sentence."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.files.base import ContentFile

from classifier.errors import StorageUnavailable
from classifier.storage import private_files

BUCKET = "classifier.bucket_storage.BucketStorage"
PROBE = "probe"
OBSTACLES = {
    "bucket_missing": "S3_BUCKET names no bucket of the object store. Make it: private, without public access.",
    "bucket_refused": "The object store refuses the bucket to the keys. Look at S3_ACCESS_KEY and S3_SECRET_KEY.",
    "storage_unavailable": "The object store does not answer. Look at S3_ENDPOINT_URL, S3_REGION and S3_ADDRESSING.",
}


@register()
def claims_outlive_tasks(**_: Any) -> list[CheckMessage]:
    if settings.CLAIM_SECONDS > settings.CELERY_TASK_TIME_LIMIT:
        return []
    message = "CLAIM_SECONDS must exceed TASK_SECONDS: otherwise a live worker loses its images to another one."
    return [Error(message, hint="Raise CLAIM_SECONDS or lower TASK_SECONDS.", id="classifier.E001")]


@register()
def media_is_private_and_writable(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if settings.STORAGES["default"]["BACKEND"] == BUCKET:
        return found
    media = Path(settings.MEDIA_ROOT)
    nearest = next(folder for folder in (media, *media.parents) if folder.exists())
    if not os.access(nearest, os.W_OK):
        hint = "Give the process write access, or set MEDIA_ROOT to another folder."
        found.append(Error(f"Originals can't be stored: {nearest} is not writable.", hint=hint, id="classifier.E002"))
    if Path(settings.STATIC_ROOT).is_relative_to(media) or settings.MEDIA_URL.strip("/"):
        message = "MEDIA_ROOT must not be reachable by a URL: originals leave only through a view."
        found.append(Error(message, hint="Move STATIC_ROOT and leave MEDIA_URL unset.", id="classifier.E003"))
    return found


@register()
def bucket_settings_fit(**_: Any) -> list[CheckMessage]:
    """What can be told without asking the store."""
    place = settings.STORAGES["default"]
    if place["BACKEND"] != BUCKET:
        return []
    found: list[CheckMessage] = []
    if find_spec("botocore") is None:
        message = "S3_BUCKET is set, and the package that speaks S3 is not installed."
        found.append(Error(message, hint="pip install -r requirements-s3.txt", id="classifier.E004"))
    options = place["OPTIONS"]
    if bool(options["access_key"]) != bool(options["secret_key"]):
        message = "S3_ACCESS_KEY and S3_SECRET_KEY belong together: give both or none of them."
        found.append(Error(message, id="classifier.E005"))
    if options["addressing"] not in {"auto", "path", "virtual"}:
        found.append(Error("S3_ADDRESSING is one of auto, path, virtual.", id="classifier.E006"))
    address = options["endpoint_url"]
    if address and not address.startswith(("https://", "http://")):
        message = "S3_ENDPOINT_URL begins with https:// or http://, as in https://minio.lab.example:9000."
        found.append(Error(message, id="classifier.E007"))
    return found


@register(deploy=True)
def bucket_keeps_what_it_is_given(**_: Any) -> list[CheckMessage]:
    """By writing a small object twice and deleting it: the second time must be refused."""
    if settings.STORAGES["default"]["BACKEND"] != BUCKET or bucket_settings_fit():
        return []
    files = private_files()
    if code := files.obstacle():
        return [Error(OBSTACLES[code], id="classifier.E008")]
    names: list[str] = []
    try:
        names += [files.save(PROBE, ContentFile(b"1")) for _ in range(2)]
        for name in names:
            files.delete(name)
    except StorageUnavailable:
        message = "The bucket can be seen, but not written to or deleted from. Its keys need GET, PUT, DELETE and LIST."
        return [Error(message, id="classifier.E009")]
    if len(set(names)) == 2:
        return []
    message = "The object store writes over what is there: it does not know If-None-Match. Two uploads could collide."
    return [Error(message, hint="Use a store that knows conditional writes.", id="classifier.E010")]
