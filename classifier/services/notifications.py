"""Telling people what happened while they were away, and what of it they have read.

A notification is written in the transaction of the act that it tells of; the act is what the audit trail keeps.
"""

from collections.abc import Sequence
from datetime import timedelta

import structlog
from django.db import DatabaseError, models
from django.db.models import Count, Exists, F, OuterRef, QuerySet
from django.utils import timezone

from accounts.built_statements import BuiltSelect, Given, OneOf
from accounts.models import User
from classifier.models import Case, CaseStatus, CellImage, Notification, NotificationKind, Report
from classifier.querysets import visible_to

logger = structlog.get_logger(__name__)
# Who drops a few pictures waits for them; who sends many goes away meanwhile.
WORTH_A_NOTICE = 10
RECENTLY = timedelta(days=1)
# Neither is kept: without the cases in sight, PostgreSQL reads every void and every image that waits.
DONE = BuiltSelect(
    Case.objects.filter(
        ~Exists(CellImage.objects.waiting().filter(case=OuterRef("pk"), void=None)),
        OneOf("pk", "cases", models.UUIDField()),
    )
    .exclude(status=CaseStatus.VOID)
    .order_by(),
    kept=False,
)
MANY = BuiltSelect(
    CellImage.objects.filter(
        OneOf("case", "cases", models.UUIDField()),
        OneOf("uploaded_by", "people", models.UUIDField()),
        void=None,
        uploaded_by__laboratory=F("case__laboratory"),
        uploaded_at__gt=Given("recent", models.DateTimeField()),
        # Who handed in a batch is told once the whole batch is finished.
        batch=None,
    )
    .order_by()
    .values("case", "uploaded_by")
    .annotate(n=Count("pk"))
    .filter(n__gte=WORTH_A_NOTICE),
    kept=False,
)


def notify(
    *, user: User, kind: NotificationKind, case: Case, report: Report | None = None, actor: User | None = None
) -> None:
    """Tell `user` of something about the case; a line of that kind that is still unread is renewed instead.

    Nothing is told to the `actor`, whose act it was, nor to those who are inactive or of another laboratory.
    """
    if user == actor or not user.is_active or user.laboratory_id != case.laboratory_id:
        return
    unread = Notification.objects.filter(user=user, kind=kind, case=case, read_at=None)
    if not unread.update(at=timezone.now(), report=report):
        # Two acts at the same moment: the line of the other one is as new as this one would be.
        Notification.objects.bulk_create(
            [Notification(user=user, kind=kind, case=case, report=report)], ignore_conflicts=True
        )


def notify_images_done(images: Sequence[CellImage]) -> None:
    """Tell those who uploaded many of these images lately that none of the case waits any longer.

    For the pipeline, after a micro-batch: one query while a case still waits, and nothing is ever raised.
    """
    if not images:
        return
    uploaders = {(image.case_id, image.uploaded_by_id) for image in images}
    try:
        cases = {case.pk: case for case in DONE.objects(cases={case for case, _ in uploaders})}
        if not cases:
            return
        recent = timezone.now() - RECENTLY
        uploads = MANY.rows(cases=cases, people={pk for _, pk in uploaders}, recent=recent)
        pairs = [(case_id, user_id) for case_id, user_id, _ in uploads]
        people = User.objects.in_bulk([user for _, user in pairs]) if pairs else {}
        for case_id, user_id in pairs:
            if (case_id, user_id) in uploaders:
                notify(user=people[user_id], kind=NotificationKind.IMAGES_DONE, case=cases[case_id])
    except DatabaseError as error:
        logger.warning("notifications_not_written", error=type(error).__name__)


def notifications_of(user: User) -> QuerySet[Notification]:
    """The user's own lines, about cases that the user may see now."""
    return Notification.objects.filter(visible_to(user, "case__laboratory"), user=user)


def unread_count(user: User) -> int:
    return notifications_of(user).filter(read_at=None).count()


def mark_read(*, actor: User, notification: Notification) -> None:
    """Mark one's own line as read. Somebody else's stays as it is."""
    _mark(notifications_of(actor).filter(pk=notification.pk))


def mark_all_read(*, actor: User) -> None:
    _mark(notifications_of(actor))


def _mark(notifications: QuerySet[Notification]) -> None:
    notifications.filter(read_at=None).update(read_at=timezone.now())
