"""What happened while one was away."""

import uuid

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from classifier import services
from classifier.models import Batch, NotificationKind
from classifier.paging import html_page
from classifier.services.notifications import notifications_of
from classifier.views.posting import posted_from

NOTIFICATIONS_ON_PAGE = 25


@require_safe
@never_cache
def notification_list(request: SignedInRequest) -> HttpResponse:
    """One's own notifications, the newest first."""
    notifications = notifications_of(request.user).select_related("case", "report")
    context = {"page": html_page(request, notifications, NOTIFICATIONS_ON_PAGE)}
    return render(request, "classifier/notifications.html", context)


def notification_open(request: SignedInRequest, notification_id: uuid.UUID) -> HttpResponse:
    """Mark one as read and go to what it is about; a link, which is followed without deciding anything, marks none."""
    notifications = notifications_of(request.user).select_related("report")
    notification = get_object_or_404(notifications, pk=notification_id)
    if request.method == "POST":
        services.mark_read(actor=request.user, notification=notification)
    if report := notification.report:
        return redirect("report", case_id=report.case_id, version=report.version)
    if notification.kind == NotificationKind.BATCH_FINISHED:
        return redirect(batches_of_case(notification.case_id))
    if notification.kind == NotificationKind.EMERGENCY_ACCESS:
        # Who, when and why; the case is a link there.
        return redirect("emergency")
    return redirect("case", case_id=notification.case_id)


def batches_of_case(case_id: uuid.UUID) -> str:
    """The page of the case's batch, or, where it has several, the list of them."""
    found = Batch.objects.filter(case=case_id).values_list("pk", flat=True)[:2]
    return reverse("batch", args=[found[0]]) if len(found) == 1 else f"{reverse('batches')}?case={case_id}"


@posted_from("notifications")
def notifications_read(request: SignedInRequest) -> HttpResponse:
    """Mark all of one's own as read."""
    services.mark_all_read(actor=request.user)
    return redirect("notifications")
