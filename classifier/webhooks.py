"""Writing webhook messages: a row for every endpoint that wants an event, in the transaction of the event itself.

What is not committed is never told, and what is committed is told even if this process dies. A message holds ids,
codes, versions and times; whoever wants results or names asks the API at the address in it, with a token.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

import structlog
from celery import current_app
from django.db import transaction
from django.db.models.functions import Now
from kombu.exceptions import OperationalError

from accounts.built_statements import BuiltSelect
from classifier.models import (
    CellImage,
    ModelVersion,
    Report,
    ReportKind,
    WebhookEndpoint,
    WebhookEvent,
    WebhookMessage,
)

logger = structlog.get_logger(__name__)
SEND_WEBHOOKS = "classifier.send_webhooks"
ACTIVE_ENDPOINTS = BuiltSelect(WebhookEndpoint.objects.filter(active=True).order_by("pk"))
API = "/api/v1"  # written out: the worker does not load the URLs of the web


def announce(laboratory_id: UUID, event: WebhookEvent, content: Mapping[str, Any]) -> None:
    """Tell the laboratory's endpoints of the event, once the open transaction is committed. One query if none wants it.

    `content` holds ids, codes and times as JSON has them: no accession number, file name or other patient text.
    """
    endpoints = wanting(event, laboratory_id)
    write(WebhookMessage(endpoint=endpoint, event=event, content=dict(content)) for endpoint in endpoints)


def announce_classified(image_ids: Collection[UUID], version: ModelVersion) -> None:
    """Tell of images that the model version has just classified; one query while no endpoint wants to know."""
    model = {"id": str(version.pk), "name": version.name, "version": version.version, "sha256": version.sha256}
    announce_images(WebhookEvent.IMAGE_CLASSIFIED, image_ids, lambda _: {"status": "classified", "model": model})


def announce_failed(image_ids: Collection[UUID]) -> None:
    """Tell of images that have just failed; one query while no endpoint wants to know."""
    announce_images(
        WebhookEvent.IMAGE_FAILED,
        image_ids,
        lambda image: {"status": "failed", "failure": {"code": image.failure_code}},
    )


def announce_report(report: Report) -> None:
    """Tell of a report that was signed just now."""
    first = report.kind == ReportKind.RELEASED
    announce(
        report.case.laboratory_id,
        WebhookEvent.REPORT_RELEASED if first else WebhookEvent.REPORT_CORRECTED,
        {
            "report": str(report.pk),
            "case": str(report.case_id),
            "version": report.version,
            "kind": str(report.kind),
            "sha256": report.sha256,
            "signed_at": report.signed_at.isoformat(),
            "url": f"{API}/reports/{report.pk}/",
        },
    )


def wanting(event: WebhookEvent, laboratory_id: UUID) -> list[WebhookEndpoint]:
    # A list in JSON can't be asked for its members on every database, and a laboratory has few endpoints.
    endpoints = WebhookEndpoint.objects.filter(active=True, laboratory=laboratory_id).order_by("pk")
    return [endpoint for endpoint in endpoints if event in endpoint.events]


def announce_images(
    event: WebhookEvent, image_ids: Collection[UUID], about: Callable[[CellImage], dict[str, Any]]
) -> None:
    if not image_ids:
        return
    endpoints = [endpoint for endpoint in ACTIVE_ENDPOINTS.objects() if event in endpoint.events]
    if not endpoints:
        return
    laboratories = {endpoint.laboratory_id for endpoint in endpoints}
    images = CellImage.objects.filter(pk__in=image_ids, case__laboratory__in=laboratories).select_related("case")
    write(
        WebhookMessage(
            endpoint=endpoint,
            event=event,
            content={
                "image": str(image.pk),
                "case": str(image.case_id),
                "batch": str(image.batch_id) if image.batch_id else None,
                **about(image),
                "url": f"{API}/images/{image.pk}/",
            },
        )
        for image in images.order_by("queued_at", "pk")
        for endpoint in endpoints
        if endpoint.laboratory_id == image.case.laboratory_id
    )


def write(messages: Iterable[WebhookMessage]) -> None:
    """Write messages that are due at once, and wake the sender when they are committed."""
    due = list(messages)
    for message in due:
        message.next_try_at = Now()
    if due:
        WebhookMessage.objects.bulk_create(due)
        transaction.on_commit(wake_sender, robust=True)


def hasten(endpoint: WebhookEndpoint) -> int:
    """Make what waits for the endpoint due now. Returns how many messages that are."""
    transaction.on_commit(wake_sender, robust=True)
    return endpoint.messages.filter(next_try_at__isnull=False, claim_token=None).update(next_try_at=Now())


def wake_sender() -> None:
    """Tell a worker that something is due. With the broker down nothing is lost: workers look by themselves as well."""
    try:
        current_app.send_task(SEND_WEBHOOKS, retry=False, expires=60)
    except OperationalError:
        logger.warning("webhook_wake_up_not_sent")
