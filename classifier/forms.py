"""What people type."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django import forms
from django.utils import timezone
from django.utils.functional import lazy
from django.utils.text import format_lazy

from accounts.models import User
from classifier.models import CELL_TYPE_CHOICES, Case, CaseStatus, ModelVersion
from classifier.worklist import ME, NEWEST, NOBODY, UNREAD, WAITING, WorklistFilter

Choices = list[tuple[str, str]]


class CaseForm(forms.Form):
    """What is known of a specimen."""

    patient_pseudonym = forms.CharField(
        max_length=64, required=False, label="Patient pseudonym", help_text="Never a name or a date of birth."
    )
    specimen = forms.CharField(max_length=80, required=False, label="Specimen")
    collected_at = forms.DateTimeField(
        required=False,
        label="Collected at",
        help_text=format_lazy("In {zone} time.", zone=lazy(timezone.get_current_timezone_name, str)()),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    wbc_value = forms.DecimalField(
        min_value=0, max_value=9999, decimal_places=2, required=False, label="WBC", help_text="In 10^9/L."
    )
    wbc_source = forms.CharField(
        max_length=80, required=False, label="Source of the WBC value", help_text="Needed with a WBC value."
    )


class OpenCaseForm(CaseForm):
    accession_number = forms.CharField(
        max_length=64, required=False, help_text="Left empty, a number is generated.", label="Accession number"
    )
    field_order = ("accession_number",)


class ChangeCaseForm(CaseForm):
    """The fields of a case as they are. Only those that were changed are sent on, so that nobody's change is undone."""

    def __init__(self, data: Any = None, *, case: Case) -> None:
        initial = {name: getattr(case, name) for name in self.base_fields}
        if case.collected_at:
            # The control shows minutes.
            initial["collected_at"] = case.collected_at.replace(second=0, microsecond=0)
        super().__init__(data, initial=initial)

    @property
    def changes(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in self.changed_data}


class AssignCaseForm(forms.Form):
    """To whom a case is given: the id of a person, or empty for nobody."""

    reader = forms.ChoiceField(
        required=False,
        label="Assigned to",
        error_messages={"invalid_choice": "That person can't be chosen here. Choose one of the list."},
    )

    def __init__(self, data: Any = None, *, people: Iterable[User], case: Case, user: User) -> None:
        super().__init__(data, initial={"reader": case.assigned_to_id})
        self.people = {str(person.pk): person for person in people}
        mine = [(pk, f"{person} (you)") for pk, person in self.people.items() if person == user]
        others = [(pk, str(person)) for pk, person in self.people.items() if person != user]
        self.fields["reader"].choices = [("", "nobody"), *mine, *others]  # type: ignore[attr-defined]

    @property
    def chosen(self) -> User | None:
        return self.people.get(self.cleaned_data["reader"])


class VoidCaseForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        label="Reason",
        widget=forms.Textarea(attrs={"rows": 3}),
        error_messages={
            "required": "Say why, in a few words.",
            "max_length": "A reason has at most 500 characters.",
        },
    )


class SearchForm(forms.Form):
    accession_number = forms.CharField(max_length=64, label="Accession number or pseudonym")


class WorklistForm(forms.Form):
    """The filters of the worklist, as they stand in the address. Whatever is left out narrows nothing."""

    status = forms.ChoiceField(required=False)
    cell_type = forms.ChoiceField(required=False, label="Class")
    confidence_below = forms.FloatField(
        required=False,
        label="Confidence below, %",
        min_value=1,
        max_value=100,
        widget=forms.NumberInput(attrs={"inputmode": "decimal"}),
        error_messages=dict.fromkeys(
            ("invalid", "min_value", "max_value"), "Give the confidence as a percentage from 1 to 100."
        ),
    )
    model = forms.ChoiceField(required=False)
    unidentified = forms.ChoiceField(required=False)
    reviewer = forms.ChoiceField(required=False)
    assigned = forms.ChoiceField(required=False, label="Assigned to")
    opened_from = forms.DateField(required=False)
    opened_to = forms.DateField(required=False)
    order = forms.ChoiceField(required=False)

    def __init__(self, data: Any = None, *, user: User, people: Iterable[User], models: Iterable[ModelVersion]) -> None:
        super().__init__(data, label_suffix="")
        persons = [(str(person.pk), str(person) if person.is_active else f"{person} (left)") for person in people]
        versions = [(str(version.pk), f"{version} (in use)" if version.active else str(version)) for version in models]
        self.offer("status", "state of a case", [("", "any but void"), (UNREAD, "Unread"), *CaseStatus.choices])
        self.offer("cell_type", "cell type", [("", "any"), *CELL_TYPE_CHOICES])
        self.offer("model", "model version", [("", "any"), *versions])
        self.offer("unidentified", "choice", [("", "any"), ("yes", "has some")])
        self.offer("reviewer", "reviewer in your laboratory", [("", "any"), *persons])
        whose = [("", "any"), (ME, "me"), (NOBODY, "nobody"), *persons]
        self.offer("assigned", "person in your laboratory to assign cases to", whose)
        self.offer("order", "order", [(NEWEST, "Newest first"), (WAITING, "Waiting longest first")])
        for name in ("opened_from", "opened_to"):
            field = self.fields[name]
            field.widget = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
            field.error_messages["invalid"] = "Give the day as year, month and day, for example 2026-11-23."

    def offer(self, name: str, kind: str, choices: Choices) -> None:
        field = self.fields[name]
        field.choices = choices  # type: ignore[attr-defined]
        field.error_messages["invalid_choice"] = f"There is no such {kind}. Choose one of the list."

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        first, last = cleaned.get("opened_from"), cleaned.get("opened_to")
        if any(day and not 1900 <= day.year <= 9000 for day in (first, last)):
            self.add_error(None, "No case was opened in that year. Choose days from 1900 on.")
        elif first and last and first > last:
            self.add_error(None, "The first day comes after the last one. Swap the two.")
        return cleaned

    @property
    def filter(self) -> WorklistFilter:
        """The filter that a valid form asks for."""
        given = {name: value for name, value in self.cleaned_data.items() if value not in ("", None)}
        if "confidence_below" in given:
            given["confidence_below"] /= 100
        for name in ("model", "reviewer"):
            if name in given:
                given[name] = UUID(given[name])
        return WorklistFilter(**given | {"unidentified": "unidentified" in given})

    @property
    def narrows(self) -> bool:
        """Whether anything but a state or an order is asked for."""
        return bool(set(self.changed_data) - {"status", "order"}) or not self.is_valid()
