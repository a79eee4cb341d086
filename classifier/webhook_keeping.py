"""How long the delivery log is kept: messages that are through are deleted after WEBHOOK_KEEP_DAYS, a few at a time."""

import time
from datetime import timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from classifier.models import WebhookEndpoint, WebhookMessage

logger = structlog.get_logger(__name__)
SLICE = 500
# A picture that is uploaded meanwhile waits no longer than this; what is left goes the next time.
SECONDS = 2.0


def forget_old_messages() -> int:
    """Delete what was delivered or given up long ago; returns how many messages that were. What waits is never old."""
    deleted = 0
    ends = time.monotonic() + SECONDS
    # In an order that chance picks: an endpoint with very many leaves a turn to the others.
    for endpoint_id in WebhookEndpoint.objects.order_by("?").values_list("pk", flat=True):
        while time.monotonic() < ends:
            gone = forget_slice(endpoint_id)
            deleted += gone
            if gone < SLICE:
                break
    if deleted:
        logger.info("webhook_messages_forgotten", messages=deleted)
    return deleted


@transaction.atomic
def forget_slice(endpoint_id: UUID) -> int:
    """The oldest of an endpoint. Its lock keeps out a replay, which would name a message that is just deleted.

    A message that was replayed stays as long as its replay does.
    """
    WebhookEndpoint.objects.select_for_update(no_key=True).get(pk=endpoint_id)
    before = timezone.now() - timedelta(days=settings.WEBHOOK_KEEP_DAYS)
    through = WebhookMessage.objects.filter(endpoint=endpoint_id, next_try_at=None, at__lt=before, replays=None)
    oldest = list(through.order_by("at", "id").values_list("pk", flat=True)[:SLICE])
    deleted, _ = WebhookMessage.objects.filter(pk__in=oldest).delete()
    return deleted
