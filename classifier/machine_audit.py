"""What the machine did, in the audit trail: which images a model has classified, and which came to nothing."""

from collections.abc import Collection, Iterable
from uuid import UUID

from accounts import audit
from classifier.models import Case, CellImage, ModelVersion


def record_classified(images: Iterable[CellImage], version: ModelVersion) -> None:
    """One event a case, by one INSERT, in the transaction of the predictions."""
    per_case: dict[tuple[UUID, UUID], list[str]] = {}
    for image in sorted(images, key=lambda image: image.pk):
        per_case.setdefault((image.case_id, image.laboratory_id), []).append(str(image.pk))
    audit.record_many(
        audit.event(
            action="images_classified",
            actor=None,
            target=Case(pk=case_id),
            laboratory=laboratory_id,
            images=ids,
            model=str(version.pk),
        )
        for (case_id, laboratory_id), ids in per_case.items()
    )


def record_failed(image_ids: Collection[UUID], code: str) -> None:
    """One event an image: it was given up, with the code of why."""
    if not image_ids:
        return
    images = CellImage.objects.filter(pk__in=image_ids).order_by("pk")
    audit.record_many(
        audit.event(
            action="image_failed",
            actor=None,
            target=CellImage(pk=image_id),
            laboratory=laboratory_id,
            case=str(case_id),
            code=code,
        )
        for case_id, laboratory_id, image_id in images.values_list("case", "case__laboratory", "pk")
    )
