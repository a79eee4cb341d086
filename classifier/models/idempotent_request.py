"""Requests that were sent with an Idempotency-Key, and what they were answered."""

import uuid
from typing import ClassVar

from django.db import models


class IdempotentRequest(models.Model):
    """A key of one client (`owner`: a digest of its token or user) and the request that came with it.

    While `status_code` is empty the first request is being answered, until `expires_at` at the latest; afterwards
    `status_code`, `headers` and `body` are its answer, kept until `expires_at`. Of an answer with a secret the body is
    not kept.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.CharField(max_length=64)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField("keyed SHA-256 of method, path, fields and files", max_length=64)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    headers = models.JSONField(default=dict)
    body = models.TextField(blank=True)
    holds_secret = models.BooleanField(default=False)
    at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["owner", "key"], name="idempotency_key_unique")]

    def __str__(self) -> str:
        return str(self.id)
