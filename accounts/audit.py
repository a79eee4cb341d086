"""Writes the audit trail, in the transaction of the act itself."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import structlog
from django.db import models

from accounts.built_statements import BuiltInsert
from accounts.models import AuditEvent, Laboratory, User

EVENTS = BuiltInsert(AuditEvent)


def record(
    *,
    action: str,
    actor: User | None,
    target: models.Model | None = None,
    laboratory: Laboratory | UUID | None = None,
    **facts: Any,
) -> AuditEvent:
    """Record that `actor` (None: the machine) did `action` to `target`. The actions stand in `audit_actions`.

    `facts` holds ids, codes and field names only: never an accession number, a file name or any other patient text.
    Address and request id come from the request that is being answered, if there is one.
    """
    written = event(action=action, actor=actor, target=target, laboratory=laboratory, **facts)
    EVENTS.insert(written)
    return written


def record_many(events: Iterable[AuditEvent]) -> None:
    """Record events that `event` has made, together."""
    EVENTS.insert(*events)


def event(
    *,
    action: str,
    actor: User | None,
    target: models.Model | None = None,
    laboratory: Laboratory | UUID | None = None,
    **facts: Any,
) -> AuditEvent:
    """What `record` writes, for `record_many`."""
    ip, request_id = origin()
    if laboratory is None and actor is not None:
        laboratory = actor.laboratory_id
    return AuditEvent(
        action=action,
        actor=actor,
        laboratory_id=laboratory.pk if isinstance(laboratory, Laboratory) else laboratory,
        target_type=str(target._meta.model_name) if target else "",
        target_id=str(target.pk) if target else "",
        facts=facts,
        ip=ip,
        request_id=request_id,
    )


def origin() -> tuple[str | None, str]:
    """The address and the id of the request that is being answered; a worker has the id of its task, no address."""
    context = structlog.contextvars.get_contextvars()
    # A message carries the context of whoever sent it, but what a worker does is nobody's request.
    if task_id := context.get("task_id"):
        return None, str(task_id)
    return context.get("ip"), str(context.get("request_id", ""))[:64]
