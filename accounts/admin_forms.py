"""Forms of the audit desk about people: in our words, and without what a hash is made of."""

from typing import Any

from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    AdminUserCreationForm,
    ReadOnlyPasswordHashField,
    ReadOnlyPasswordHashWidget,
    UserChangeForm,
)

from accounts.models import User

USABLE_PASSWORD_HELP = "Disabled: nobody signs in to this account by a password until one is set."  # noqa: S105
PASSWORD_LOST = f"{USABLE_PASSWORD_HELP} The present password is lost."


class PasswordStateWidget(ReadOnlyPasswordHashWidget):
    """Whether there is a password, and nothing of its hash."""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        if len(context["summary"]) > 1:
            context["summary"] = [{"label": "A password is set."}]
        return context


class LaboratoryUserCreationForm(AdminUserCreationForm):
    usable_password = AdminUserCreationForm.create_usable_password_field(USABLE_PASSWORD_HELP)

    class Meta:
        model = User
        fields = ("email", "full_name", "role")


class LaboratoryUserChangeForm(UserChangeForm):
    password = ReadOnlyPasswordHashField(
        label="Password", widget=PasswordStateWidget, help_text="Only a hash of it is stored: nobody can look it up."
    )

    class Meta:
        model = User
        fields = ("email", "full_name", "role", "is_active")


class LaboratoryPasswordForm(AdminPasswordChangeForm):
    usable_password_help_text = PASSWORD_LOST
