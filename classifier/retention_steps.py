"""The machine's side of retention: removes the pictures that a laboratory's rule no longer keeps.

The fact is committed first, the files are deleted then. A worker that dies in between leaves files that nobody is
shown any more, and the check of the stored files (`classifier.stored_files`) deletes them.
"""

import time
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog
from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from accounts import audit
from classifier import thumbnails
from classifier.models import Case, CellImage, RemovedPicture, RetentionRule
from classifier.retention import due_pictures, rule_of, rules_in_force

logger = structlog.get_logger(__name__)
# A picture that is uploaded meanwhile waits no longer than this.
SLICE_SECONDS = 1.0
AT_ONCE = 100


def remove_due_pictures(now: datetime | None = None) -> int:
    """Remove what is due, for about a second; returns how many pictures. The rest comes at the next time."""
    now = now or timezone.now()
    ends = time.monotonic() + SLICE_SECONDS
    removed = 0
    for rule in rules_in_force(now):
        while time.monotonic() < ends:
            due = due_pictures(rule.laboratory_id, rule.keep_days or 0, now)
            cases = due.order_by().values_list("case", flat=True)[:1]
            count = sum(remove_pictures_of(case_id, rule, now) for case_id in cases)
            if not count:
                break
            removed += count
    if removed:
        logger.info("pictures_removed", pictures=removed)
    return removed


@transaction.atomic
def remove_pictures_of(case_id: UUID, rule: RetentionRule, now: datetime) -> int:
    """Remove due pictures of one case, if the rule still counts and the case still is as it was."""
    # Whoever puts the case on hold, opens it again or sets another rule waits for this, or is seen by it.
    case = Case.objects.select_for_update().get(pk=case_id)
    newest = rule_of(rule.laboratory_id)
    if newest is None or newest.pk != rule.pk:
        return 0
    due = due_pictures(rule.laboratory_id, rule.keep_days or 0, now).filter(case=case)
    images = list(due.order_by("pk")[:AT_ONCE])
    if not images:
        return 0
    RemovedPicture.objects.bulk_create(RemovedPicture(image=image, rule=rule) for image in images)
    CellImage.objects.filter(pk__in=[image.pk for image in images]).update(has_thumbnail=False)
    audit.record(
        action="pictures_removed",
        actor=None,
        target=case,
        laboratory=rule.laboratory,
        rule=rule.version,
        images=[str(image.pk) for image in images],
    )
    names = [name for image in images for name in (str(image.file.name), thumbnails.path_of(image))]
    transaction.on_commit(partial(delete_files, names))
    return len(images)


def delete_files(names: list[str]) -> None:
    for name in names:
        try:
            default_storage.delete(name)
        except OSError as error:
            logger.warning("file_not_deleted", error=type(error).__name__)
