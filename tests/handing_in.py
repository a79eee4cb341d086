"""Handing in batches, as tests do it: submitted, checked file by file, classified."""

from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile

from accounts.models import User
from classifier import batch_steps, pipeline, services
from classifier.models import (
    Batch,
)
from tests.zips import zip_of


def submitted(actor: User, files: dict[str, bytes], **options: Any) -> Batch:
    archive = SimpleUploadedFile("cells.zip", zip_of(files))
    return services.submit_archive(actor=actor, archive=archive, **options)


def checked(actor: User, files: dict[str, bytes], **options: Any) -> Batch:
    batch = submitted(actor, files, **options)
    check_all()
    batch.refresh_from_db()
    return batch


def check_all() -> None:
    while Batch.objects.unchecked().exists():
        batch_steps.check_archives()


def classify_all() -> None:
    while pipeline.classify_queued():
        pass
