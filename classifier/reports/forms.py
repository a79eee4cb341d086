"""What people type when they sign a report or open it again."""

from django import forms

from classifier.models import AmendmentKind

COMMENT_LENGTH = 2000
REASON_LENGTH = 500


class ReleaseForm(forms.Form):
    comment = forms.CharField(
        required=False,
        max_length=COMMENT_LENGTH,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="Printed on the report. Write no name and no date of birth.",
    )
    reason = forms.CharField(required=False, max_length=REASON_LENGTH, label="Reason")
    password = forms.CharField(
        label="Your password",
        strip=False,
        max_length=4096,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        help_text="Your signature: it says that you have looked at these results.",
    )

    def __init__(
        self, *arguments: object, below_target: bool = False, is_first: bool = True, **options: object
    ) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        if below_target:
            self.fields["reason"].label = "Reason for releasing with too few cells"
            self.fields["reason"].required = True
        elif is_first:
            del self.fields["reason"]
        else:
            self.fields["reason"].label = "Anything to add to the reason of this version"


class AmendForm(forms.Form):
    kind = forms.ChoiceField(
        label="What is it?",
        widget=forms.RadioSelect,
        choices=[
            (AmendmentKind.AMENDED, "Amend: something is added or changed, and no released result was wrong"),
            (AmendmentKind.CORRECTED, "Correct: a released result was wrong"),
        ],
    )
    reason = forms.CharField(
        max_length=REASON_LENGTH,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Printed on the new version. Write no name and no date of birth.",
    )
