"""Asking for a table of the laboratory, withdrawing that, and noting who fetched one. For auditors only."""

from collections.abc import Mapping, Sequence

from django.db import transaction
from django.db.models.functions import Now

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier.errors import Conflict, InvalidInput, NotAllowed
from classifier.exports import WRITERS, exports_of
from classifier.models import Export, ExportState
from classifier.models.export import WITHDRAWN
from classifier.services.permission import require
from classifier.wakeup import wake_workers

MOST_WAITING = 5


@transaction.atomic
def request_export(*, actor: User, kind: str, filters: Mapping[str, Sequence[str]]) -> Export:
    """Ask the workers to write the table of `kind` that `filters` leave; the same wish that still waits is that one.

    Raises NotAllowed; InvalidInput (unknown_export, unknown_filter, export_too_large); Conflict (too_many_exports).
    """
    require(actor, Verb.AUDIT)
    if kind not in WRITERS:
        raise InvalidInput("unknown_export", f"There is no export of that kind. Known: {', '.join(WRITERS)}.")
    kept = WRITERS[kind].clean(filters)
    waiting = list(exports_of(actor).filter(finished_at=None))
    for export in waiting:
        if (export.kind, export.filters, export.started_at) == (kind, kept, None):
            return export
    if len(waiting) >= MOST_WAITING:
        message = f"{MOST_WAITING} exports wait already. Ask again when one of them is finished, or withdraw one."
        raise Conflict("too_many_exports", message)
    assert actor.laboratory  # noqa: S101 - who may audit has one
    made = Export.objects.create(laboratory=actor.laboratory, kind=kind, filters=kept, requested_by=actor)
    WRITERS[kind].require_fits(made)
    audit.record(action="export_requested", actor=actor, target=made, kind=kind, filters=kept)
    wake_workers()
    return made


@transaction.atomic
def withdraw_export(*, actor: User, export: Export) -> Export:
    """Take back a wish that is not finished. Raises NotAllowed; Conflict (export_finished)."""
    require_own(actor, export)
    withdrawn = Export.objects.filter(pk=export.pk, finished_at=None).update(
        finished_at=Now(), failure_code=WITHDRAWN, claim_token=None, claim_expires_at=None, position=None
    )
    if not withdrawn:
        raise Conflict("export_finished", "This export is finished already. Its file goes by itself.")
    audit.record(action="export_withdrawn", actor=actor, target=export, kind=export.kind)
    export.refresh_from_db()
    return export


def record_export_download(*, actor: User, export: Export) -> None:
    """Note that the file left the system. Raises NotAllowed; Conflict (export_not_ready)."""
    require_own(actor, export)
    if export.state != ExportState.READY:
        raise Conflict("export_not_ready", "This export has no file: it is not finished, or its file was removed.")
    audit.record(
        action="export_downloaded",
        actor=actor,
        target=export,
        kind=export.kind,
        rows=export.rows_written,
        sha256=export.sha256,
    )


def require_own(actor: User, export: Export) -> None:
    require(actor, Verb.AUDIT)
    if export.laboratory_id != actor.laboratory_id:
        raise NotAllowed("not_allowed", "This export belongs to another laboratory.")
