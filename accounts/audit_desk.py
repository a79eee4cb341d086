"""How the audit desk shows an event: its target as a link, its facts as a list, and the seal that lists it."""

from uuid import UUID

from django.apps import apps
from django.db.models import Model, QuerySet
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join

from accounts.audit_actions import ACTIONS
from accounts.audit_filters import OUR_APPS
from accounts.models import AuditEvent
from accounts.seals import seal_of, waits_for_seal

# Targets that have a page of their own, by its URL name; the others have theirs on the desk.
PAGES = {"case": "case", "cellimage": "image", "batch": "batch", "modelversion": "model"}


def in_words(event: AuditEvent) -> str:
    return ACTIONS.get(event.action, event.action)


def target_link(event: AuditEvent) -> str:
    """The target's name and id, as a link where there is a page of it. Who may see that page is decided there."""
    if not event.target_type:
        return "-"
    model = model_named(event.target_type)
    name = model._meta.verbose_name if model else event.target_type
    address = address_of(event)
    if address is None:
        return format_html("{} {}", name, event.target_id)
    return format_html('{} <a href="{}">{}</a>', name, address, event.target_id)


def address_of(event: AuditEvent) -> str | None:
    model = model_named(event.target_type)
    try:
        if page := PAGES.get(event.target_type):
            return reverse(page, args=[UUID(event.target_id)])
        if model is not None:
            return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[event.target_id])
    except (NoReverseMatch, ValueError):
        pass
    return None


def model_named(name: str) -> type[Model] | None:
    for app in OUR_APPS:
        models = apps.get_app_config(app).models
        if name in models:
            return models[name]
    return None


def facts_list(event: AuditEvent) -> str:
    """The facts, one a line."""
    if not isinstance(event.facts, dict) or not event.facts:
        return "-"
    lines = ((name, shown(value)) for name, value in sorted(event.facts.items()))
    return format_html("<dl>{}</dl>", format_html_join("", "<dt>{}</dt><dd>{}</dd>", lines))


def shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(each) for each in value) or "none"
    return "none" if value is None else str(value)


def seal_in_words(event: AuditEvent) -> str:
    # First whether it waits: one that is sealed at this moment is found in its seal then.
    if waits_for_seal(event):
        return "Waits for the next seal, which is made within a minute"
    if number := seal_of(event):
        return f"Sealed in block {number}"
    return "In none of the seals made next, and not waiting for one: run manage.py verify_audit, which reads all seals"


def found_by_id(events: QuerySet[AuditEvent], text: str) -> QuerySet[AuditEvent]:
    """The event of exactly this id, those of the target of this id, and those of the request.

    What is no id finds nothing.
    `verify_audit` names events by their id, and log lines name requests by theirs.
    """
    try:
        pk = str(UUID(text.strip()))
    except ValueError:
        return events.none()
    # Each of the three reads follows an index; a condition with OR would follow none.
    models = [name for app in OUR_APPS for name in apps.get_app_config(app).models]
    of_target = events.filter(target_type__in=models, target_id=pk).values("pk")
    # The index holds no events without one, and SQLite wants to be told.
    of_request = events.filter(request_id=pk).exclude(request_id="").values("pk")
    itself = events.filter(pk=pk).values("pk")
    return events.filter(pk__in=of_target.order_by().union(of_request.order_by(), itself.order_by(), all=True))
