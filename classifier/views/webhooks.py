"""The administrator's pages of webhooks: where the laboratory is told of events, and what became of each message."""

import uuid
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.roles import Verb
from classifier import services
from classifier.errors import HematoVisionError
from classifier.models import WebhookEndpoint, WebhookEvent
from classifier.paging import html_page
from classifier.services.webhooks import CHOICES, endpoints_of, messages_of, with_waiting
from classifier.views.posting import posted_from

ENDPOINTS_ON_PAGE = 20
MESSAGES_ON_PAGE = 25
LOOK_AGAIN = "Reload this page in a moment to see what came of it."


@never_cache
def webhook_list(request: SignedInRequest) -> HttpResponse:
    """The endpoints of the laboratory; POST adds one and shows its secret, this once."""
    require_administrator(request)
    if request.method != "POST":
        return list_page(request)
    url, events = request.POST.get("url", "").strip(), request.POST.getlist("events")
    endpoint_id = posted_id(request.POST.get("endpoint", ""))
    try:
        endpoint, secret = services.add_endpoint(actor=request.user, url=url, events=events, endpoint_id=endpoint_id)
    except HematoVisionError as error:
        if error.code == "endpoint_exists":
            messages.warning(request, error.message)
            return redirect("webhooks")
        return list_page(request, typed={"url": url, "events": events}, error=error)
    return secret_page(request, endpoint, secret)


def posted_id(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def list_page(
    request: SignedInRequest, *, typed: dict[str, Any] | None = None, error: HematoVisionError | None = None
) -> HttpResponse:
    endpoints = with_waiting(endpoints_of(request.user))
    context = {
        "page": html_page(request, endpoints, ENDPOINTS_ON_PAGE),
        "choices": CHOICES,
        "typed": typed or {"url": "", "events": [WebhookEvent.REPORT_RELEASED, WebhookEvent.REPORT_CORRECTED]},
        "fresh_id": uuid.uuid4(),
        "error": error,
        "error_at_events": error is not None and error.code in {"events_missing", "unknown_event"},
        "error_at_url": error is not None and error.code.startswith("url_"),
    }
    return render(request, "classifier/webhook_list.html", context, status=error.status if error else 200)


def secret_page(
    request: SignedInRequest, endpoint: WebhookEndpoint, secret: str, *, rotated: bool = False
) -> HttpResponse:
    context = {"endpoint": endpoint, "secret": secret, "rotated": rotated}
    return render(request, "classifier/webhook_secret.html", context)


@require_safe
@never_cache
def webhook(request: SignedInRequest, endpoint_id: uuid.UUID) -> HttpResponse:
    """One endpoint and its messages, the newest first."""
    endpoint = endpoint_for(request, endpoint_id)
    sent = messages_of(request.user).filter(endpoint=endpoint)
    context = {
        "endpoint": endpoint,
        "page": html_page(request, sent, MESSAGES_ON_PAGE),
        "waiting": sent.filter(next_try_at__isnull=False).count(),
        "keep_days": settings.WEBHOOK_KEEP_DAYS,
    }
    return render(request, "classifier/webhook.html", context)


def done(request: SignedInRequest, endpoint_id: uuid.UUID, service: Callable[..., Any], sentence: str) -> HttpResponse:
    """Let the service act on the endpoint, and say on its page what came of it."""
    endpoint = endpoint_for(request, endpoint_id)
    try:
        service(actor=request.user, endpoint=endpoint)
    except HematoVisionError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, sentence)
    return redirect("webhook", endpoint_id=endpoint.pk)


@posted_from("webhook")
def webhook_test(request: SignedInRequest, endpoint_id: uuid.UUID) -> HttpResponse:
    return done(request, endpoint_id, services.send_test_message, f"A test message is on its way. {LOOK_AGAIN}")


@posted_from("webhook")
@never_cache
def webhook_rotate(request: SignedInRequest, endpoint_id: uuid.UUID) -> HttpResponse:
    """Make a new secret and show it, this once."""
    endpoint = endpoint_for(request, endpoint_id)
    try:
        secret = services.rotate_secret(actor=request.user, endpoint=endpoint)
    except HematoVisionError as error:
        messages.error(request, error.message)
        return redirect("webhook", endpoint_id=endpoint.pk)
    return secret_page(request, endpoint, secret, rotated=True)


@posted_from("webhook")
def webhook_switch_off(request: SignedInRequest, endpoint_id: uuid.UUID) -> HttpResponse:
    return done(
        request, endpoint_id, services.switch_off_endpoint, "The endpoint is switched off: nothing more is sent there."
    )


@posted_from("webhook")
def webhook_send_now(request: SignedInRequest, endpoint_id: uuid.UUID) -> HttpResponse:
    """Try what waits, without waiting for its time."""
    return done(request, endpoint_id, services.send_now, f"What waits is tried now. {LOOK_AGAIN}")


def webhook_replay(request: SignedInRequest, endpoint_id: uuid.UUID, message_id: uuid.UUID) -> HttpResponse:
    """Send a message's content once more."""
    endpoint = endpoint_for(request, endpoint_id)
    if request.method == "POST":
        sent = messages_of(request.user).filter(endpoint=endpoint).select_related("endpoint")
        message = get_object_or_404(sent, pk=message_id)
        try:
            services.replay_message(actor=request.user, message=message)
        except HematoVisionError as error:
            messages.error(request, error.message)
        else:
            messages.success(request, "The message is sent once more, as a new message.")
    return redirect("webhook", endpoint_id=endpoint.pk)


def require_administrator(request: SignedInRequest) -> None:
    if not request.user.may(Verb.ADMINISTER):
        raise PermissionDenied


def endpoint_for(request: SignedInRequest, endpoint_id: uuid.UUID) -> WebhookEndpoint:
    """The endpoint, if the user's laboratory has it (else 404) and the user administers it (else 403)."""
    endpoint = get_object_or_404(endpoints_of(request.user), pk=endpoint_id)
    require_administrator(request)
    return endpoint
