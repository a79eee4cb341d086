"""What people type."""

from django import forms


class OpenCaseForm(forms.Form):
    accession_number = forms.CharField(
        max_length=64, required=False, help_text="Left empty, a number is generated.", label="Accession number"
    )
    patient_pseudonym = forms.CharField(
        max_length=64, required=False, label="Patient pseudonym", help_text="Never a name or a date of birth."
    )
    specimen = forms.CharField(max_length=80, required=False, label="Specimen")
    collected_at = forms.DateTimeField(
        required=False, label="Collected at", widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )
    wbc_value = forms.DecimalField(
        min_value=0, max_value=9999, decimal_places=2, required=False, label="WBC", help_text="In 10^9/L."
    )
    wbc_source = forms.CharField(
        max_length=80, required=False, label="Source of the WBC value", help_text="Needed with a WBC value."
    )


class SearchForm(forms.Form):
    accession_number = forms.CharField(max_length=64, label="Accession number")
