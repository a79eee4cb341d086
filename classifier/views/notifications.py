"""What happened while one was away."""

import uuid

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from classifier import services
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
    return redirect("case", case_id=notification.case_id)


@posted_from("notifications")
def notifications_read(request: SignedInRequest) -> HttpResponse:
    """Mark all of one's own as read."""
    services.mark_all_read(actor=request.user)
    return redirect("notifications")
