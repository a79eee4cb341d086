"""Telling other systems what happened: where to, and each message with its tries.

State of a WebhookMessage, which follows from its fields:

    WAITING (next_try_at) --sent and acknowledged--> DELIVERED (delivered_at)
       ^ not acknowledged |
       +------------------+--three days, or the endpoint was switched off--> GIVEN UP (neither)
"""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.models import Laboratory


class WebhookEvent(models.TextChoices):
    IMAGE_CLASSIFIED = "image.classified", "Image classified"
    IMAGE_FAILED = "image.failed", "Image failed"
    BATCH_FINISHED = "batch.finished", "Batch finished"
    REPORT_RELEASED = "report.released", "Report released"
    REPORT_CORRECTED = "report.corrected", "Report amended or corrected"
    TEST = "webhook.test", "Test message"


class MessageState(models.TextChoices):
    WAITING = "waiting", "Waiting"
    DELIVERED = "delivered", "Delivered"
    GIVEN_UP = "given_up", "Given up"


# What came of a try that was not acknowledged, as a stable code and in words. `status` is the answer's HTTP status.
OUTCOMES: dict[str, str] = {
    "not_acknowledged": "The receiver answered {status}; it should be 200 to 299.",
    "redirected": "The receiver answered {status} and named another address, which is not followed. Add that one.",
    "timed_out": "The receiver did not answer in time.",
    "name_not_found": "The name of the receiver could not be resolved.",
    "address_refused": "The name leads to an address that no message may go to.",
    "not_connected": "No connection to the receiver: refused, unreachable or broken off.",
    "not_trusted": "The receiver's certificate is not valid for its name, or TLS failed.",
    "not_http": "The receiver's answer is no HTTP.",
    "secret_unreadable": "The secret can't be read, because the instance's key has changed. Make a new secret.",
    "switched_off": "The endpoint was switched off before this was delivered.",
}


class WebhookEndpoint(models.Model):
    """An address of a laboratory that is told of `events`. `secret` is encrypted; it signs every message.

    After a rotation `previous_secret` signs as well, until `previous_secret_until`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    laboratory = models.ForeignKey(Laboratory, models.PROTECT, related_name="webhook_endpoints")
    url = models.CharField(max_length=500)
    events = models.JSONField()
    secret = models.TextField("encrypted secret")
    previous_secret = models.TextField("encrypted secret before", blank=True)
    previous_secret_until = models.DateTimeField(null=True, blank=True)
    active = models.BooleanField(default=True)
    made_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    made_at = models.DateTimeField(auto_now_add=True)

    paging_field = "made_at"

    class Meta:
        ordering: ClassVar = ["-made_at", "-id"]
        indexes: ClassVar = [models.Index(fields=["laboratory"], name="webhook_active", condition=Q(active=True))]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def event_names(self) -> list[str]:
        """What the endpoint is told of, in words."""
        return [str(event.label) for event in WebhookEvent if event in self.events]


class WebhookMessage(models.Model):
    """One event for one endpoint: written with the event itself, sent until it is acknowledged or given up.

    `content` holds ids, codes and times only. `replay_of` is the message that a person asked to send again.
    `last_status` is the HTTP status of the last answer; `last_code` is one of OUTCOMES, empty while all is well.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    endpoint = models.ForeignKey(WebhookEndpoint, models.PROTECT, related_name="messages")
    event = models.CharField(max_length=24, choices=WebhookEvent.choices)
    content = models.JSONField()
    at = models.DateTimeField(auto_now_add=True)
    tries = models.PositiveSmallIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True, blank=True)
    claim_token = models.UUIDField(null=True, blank=True)
    claim_expires_at = models.DateTimeField(null=True, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    last_status = models.PositiveSmallIntegerField(null=True, blank=True)
    last_code = models.CharField(max_length=40, blank=True)
    replay_of = models.ForeignKey("self", models.PROTECT, null=True, blank=True, related_name="replays")

    paging_field = "at"

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(delivered_at=None) | Q(next_try_at=None), name="delivered_webhook_waits_no_more"
            ),
            models.CheckConstraint(
                condition=Q(claim_token=None, claim_expires_at=None)
                | Q(claim_token__isnull=False, claim_expires_at__isnull=False, next_try_at__isnull=False),
                name="webhook_claim_has_token_and_expiry",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["endpoint", "at", "id"], name="webhook_due", condition=Q(next_try_at__isnull=False)),
            models.Index(fields=["endpoint", "-at", "-id"], name="webhook_endpoint_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.id}"

    @property
    def state(self) -> MessageState:
        if self.delivered_at:
            return MessageState.DELIVERED
        return MessageState.WAITING if self.next_try_at else MessageState.GIVEN_UP

    @property
    def outcome(self) -> str:
        """What came of the last try, as a sentence; empty before the first one and once it was acknowledged."""
        if not self.last_code:
            return ""
        # A code of a newer version, met after a roll-back, has no sentence here.
        return OUTCOMES.get(self.last_code, "The message was not acknowledged.").format(status=self.last_status)
