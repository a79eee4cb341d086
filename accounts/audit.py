"""Writes the audit trail, in the transaction of the act itself."""

from typing import Any

import structlog
from django.db import models

from accounts.models import AuditEvent, Laboratory, User


def record(
    *,
    action: str,
    actor: User | None,
    target: models.Model | None = None,
    laboratory: Laboratory | None = None,
    **facts: Any,
) -> AuditEvent:
    """Record that `actor` (None: the machine) did `action` to `target`.

    `facts` holds ids, codes and field names only: never an accession number, a file name or any other patient text.
    Address and request id come from the request that is being answered, if there is one.
    """
    request = structlog.contextvars.get_contextvars()
    return AuditEvent.objects.create(
        action=action,
        actor=actor,
        laboratory=laboratory or (actor.laboratory if actor else None),
        target_type=str(target._meta.model_name) if target else "",
        target_id=str(target.pk) if target else "",
        facts=facts,
        ip=request.get("ip"),
        request_id=request.get("request_id", ""),
    )
