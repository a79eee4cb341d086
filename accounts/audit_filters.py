"""How the list of the audit trail is narrowed: by what every index leads to, and without a look at all rows.

The admin's own filters ask the table for the values that occur, which takes seconds where it has a million rows.
"""

from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from accounts.audit_actions import ACTIONS
from accounts.models import AuditEvent, User

OUR_APPS = ("accounts", "classifier")
MACHINE = "machine"
# Beyond this a list meets enough of them on its way.
FEW = 1000


class FoldedFilter(admin.SimpleListFilter):
    """A long list, folded while nothing of it is chosen."""

    template = "admin/folded_filter.html"


class ActionFilter(FoldedFilter):
    title = "action"
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return sorted(ACTIONS.items(), key=lambda pair: pair[1].lower())

    def queryset(self, request: HttpRequest, events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return events.filter(action=self.value()) if self.value() else events


class TargetFilter(FoldedFilter):
    title = "target"
    parameter_name = "target_type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        models = (model for app in OUR_APPS for model in apps.get_app_config(app).get_models())
        return sorted((str(model._meta.model_name), str(model._meta.verbose_name)) for model in models)

    def queryset(self, request: HttpRequest, events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        if not self.value():
            return events
        of_that_type = AuditEvent.objects.filter(target_type=self.value()).order_by()
        # Where a trail holds hardly any, or none, the index leads to them, and the trail isn't read to its end.
        few = list(of_that_type.values_list("pk", flat=True)[: FEW + 1])
        return events.filter(target_type=self.value(), **({"pk__in": few} if len(few) <= FEW else {}))


class ActorFilter(FoldedFilter):
    """The people of the own laboratory; a platform operator finds the platform operators."""

    title = "actor"
    parameter_name = "actor"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        people = User.objects.filter(laboratory=getattr(request.user, "laboratory_id", None))
        return [
            (MACHINE, "The machine"),
            *sorted(((str(user.pk), str(user)) for user in people), key=lambda one: one[1]),
        ]

    def queryset(self, request: HttpRequest, events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        value = self.value()
        if value == MACHINE:
            return events.filter(actor=None)
        try:
            return events.filter(actor=UUID(value)) if value else events
        except ValueError:
            return events.none()


class DaysFilter(admin.ListFilter):
    """From a day, to a day, both included, in the instance's time zone."""

    title = "days"
    template = "admin/days_filter.html"
    names = ("from", "to")

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        for name in self.names:
            if name in params:
                given = params.pop(name)
                self.used_parameters[name] = given[-1] if isinstance(given, list) else given

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return list(self.names)

    def day(self, name: str) -> date | None:
        """Raises IncorrectLookupParameters for what is no day: the admin then shows the whole list, and says so."""
        text = str(self.used_parameters.get(name) or "")
        try:
            return date.fromisoformat(text) if text else None
        except ValueError as error:
            raise IncorrectLookupParameters from error

    def queryset(self, request: HttpRequest, events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        first, last = self.day("from"), self.day("to")
        if first:
            events = events.filter(at__gte=begin_of(first))
        if last and last < date.max:
            events = events.filter(at__lt=begin_of(last + timedelta(days=1)))
        return events

    def choices(self, changelist: ChangeList) -> Any:
        today = timezone.localdate()
        for words, first in (("Any time", None), ("Today", today), ("Past 7 days", today - timedelta(days=6))):
            chosen = {"from": first.isoformat() if first else None, "to": None}
            yield {
                "selected": {name: self.used_parameters.get(name) for name in self.names} == chosen,
                "query_string": changelist.get_query_string(
                    {name: day for name, day in chosen.items() if day}, remove=list(self.names)
                ),
                "display": words,
                "days": {name: self.used_parameters.get(name, "") for name in self.names},
                # What else the address holds, for the form to carry along; pages begin anew.
                "others": [pair for pair in self.request.GET.items() if pair[0] not in (*self.names, "p", "e")],
            }


def begin_of(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))
