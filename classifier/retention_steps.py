"""The machine's side of retention: removes the pictures that a laboratory's rule no longer keeps.

The fact is committed first, the files are deleted then. A worker that dies in between leaves files that nobody is
shown any more, and the check of the stored files (`classifier.stored_files`) deletes them.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import repeat
from math import ceil
from uuid import UUID

import structlog
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Count, Exists, OuterRef
from django.utils import timezone

from accounts import audit
from accounts.models import Laboratory
from classifier import thumbnails
from classifier.errors import StorageUnavailable
from classifier.models import Case, CellImage, RemovedPicture, RetentionRule
from classifier.retention import due_pictures, rule_of, rules_in_force

logger = structlog.get_logger(__name__)
# A picture that is uploaded meanwhile waits no longer than this.
SLICE_SECONDS = 1.0
AT_ONCE = 100
CASES = 200


def remove_due_pictures(now: datetime | None = None) -> int:
    """Remove what is due, for about a second; returns how many pictures. The rest comes at the next time."""
    now = now or timezone.now()
    ends: float | None = None
    removed = 0
    for rule, case_id in due_cases(now):
        if ends and time.monotonic() > ends:
            logger.info("pictures_still_due")
            break
        # From the first case on: however long the search took, something is removed.
        ends = ends or time.monotonic() + SLICE_SECONDS
        removed += remove_pictures_of(case_id, rule, now)
    if removed:
        logger.info("pictures_removed", pictures=removed)
    return removed


def due_cases(now: datetime) -> Iterator[tuple[RetentionRule, UUID]]:
    """The cases that have due pictures, each as often as AT_ONCE of them need."""
    for rule in rules_in_force(now):
        due = due_pictures(rule.laboratory_id, rule.keep_days or 0, now)
        counted = due.order_by("case_id").values_list("case_id").annotate(Count("pk"))
        some = list(counted[:CASES])
        while some:
            for case_id, pictures in some:
                yield from repeat((rule, case_id), ceil(pictures / AT_ONCE))
            some = list(counted.filter(case_id__gt=some[-1][0])[:CASES]) if len(some) == CASES else []


@transaction.atomic
def remove_pictures_of(case_id: UUID, rule: RetentionRule, now: datetime) -> int:
    """Remove due pictures of one case, if the rule still counts and the case still is as it was."""
    # Whoever puts the case on hold, opens it again or sets another rule waits for this, or is seen by it.
    Laboratory.objects.select_for_update(no_key=True).get(pk=rule.laboratory_id)
    # Not its key: who cancels a batch has locked images that this waits for, and asks for the case's key at its end.
    case = Case.objects.select_for_update(no_key=True).get(pk=case_id)
    newest = rule_of(rule.laboratory_id)
    if newest is None or newest.pk != rule.pk:
        return 0
    due = due_pictures(rule.laboratory_id, rule.keep_days or 0, now, case.pk)
    # Locked in the order of a batch that is cancelled: it lets nothing go that is removed at this moment.
    images = list(due.order_by("pk").select_for_update(of=("self",), no_key=True)[:AT_ONCE])
    if not images:
        return 0
    RemovedPicture.objects.bulk_create(RemovedPicture(image=image, rule=rule) for image in images)
    CellImage.objects.filter(pk__in=[image.pk for image in images]).update(has_thumbnail=False)
    # Once nothing is left, nobody looks at the case again.
    left = CellImage.objects.filter(case=OuterRef("pk"), removed_picture=None)
    Case.objects.filter(~Exists(left), pk=case.pk).update(emptied_at=now)
    audit.record(
        action="pictures_removed",
        actor=None,
        target=case,
        laboratory=rule.laboratory,
        rule=rule.version,
        images=[str(image.pk) for image in images],
    )
    names = [name for image in images for name in (str(image.file.name), *thumbnails.paths_of(image))]
    transaction.on_commit(partial(delete_files, names))
    return len(images)


def delete_files(names: list[str]) -> None:
    for name in names:
        try:
            default_storage.delete(name)
        except OSError as error:
            logger.warning("file_not_deleted", error=type(error).__name__)
        except StorageUnavailable as error:
            # Each further name would wait as long in vain; the check of the stored files deletes them later.
            logger.warning("files_not_deleted", error=type(error).__name__)
            return
