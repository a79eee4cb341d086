"""Rows in a chosen state, made by the same services that people use."""

import itertools
from typing import Any
from uuid import uuid4

from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import User
from classifier import services
from classifier.models import Case, CellImage, ImageStatus, ModelVersion, Prediction
from tests.pictures import jpeg_of_cell

# As many different pictures as any test needs; they are drawn once and used again by the next ones.
seeds = itertools.cycle(range(1000, 1400))


def image_in_state(status: str, *, case: Case, uploaded_by: User, **fields: Any) -> CellImage:
    """An image of the case in `status`. `content` gives its bytes; other fields are set on the row as they are."""
    content = fields.pop("content", None) or jpeg_of_cell(next(seeds))
    upload = SimpleUploadedFile(fields.pop("name", "cell.jpg"), content)
    image, _ = services.add_image(actor=uploaded_by, case=case, upload=upload)
    if status == ImageStatus.REVIEWED:
        return reviewed(image, by=fields.pop("reader", uploaded_by), **fields)
    state: dict[str, Any] = {
        ImageStatus.QUEUED: {},
        ImageStatus.CLAIMED: {"claim_token": uuid4(), "claim_expires_at": Now(), "attempts": 1},
        ImageStatus.CLASSIFIED: {"classified_at": timezone.now(), "attempts": 1},
        ImageStatus.FAILED: {"failure_code": "prediction_failed", "faults": 3, "attempts": 3},
    }[ImageStatus(status)]
    CellImage.objects.filter(pk=image.pk).update(status=status, **{**state, **fields})
    image.refresh_from_db()
    return image


def reviewed(image: CellImage, *, by: User, final_label: str = "lymphocyte", **fields: Any) -> CellImage:
    """The image, failed and then read by hand, so that it is reviewed without any model."""
    failed = {"status": ImageStatus.FAILED, "failure_code": "prediction_failed", "faults": 3, "attempts": 3}
    CellImage.objects.filter(pk=image.pk).update(**failed, **fields)
    image.refresh_from_db()
    services.review_image(actor=by, image=image, verdict="MANUAL", final_label=final_label)
    image.refresh_from_db()
    return image


def prediction_of(image: CellImage, version: ModelVersion, **fields: Any) -> Prediction:
    """A prediction row: a lymphocyte with 92 %, unless `fields` say otherwise."""
    others = [label for label in version.labels if label != "lymphocyte"]
    usual: dict[str, Any] = {
        "label": "lymphocyte",
        "suggestion": "lymphocyte",
        "confidence": 0.92,
        "probabilities": {"lymphocyte": 0.92} | dict.fromkeys(others, 0.08 / len(others)),
        "conformal_set": ["lymphocyte"],
        "abstained": False,
        "ood_score": 0.4,
        "box": [20, 20, 200, 200],
        "heat_map": [[0.1, 0.5], [0.9, 0.2]],
        "duration_ms": 4.0,
    }
    return Prediction.objects.create(image=image, model_version=version, **{**usual, **fields})
