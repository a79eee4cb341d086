"""How allauth behaves here: accounts are made by an administrator, and people alone sign in on the pages."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest, HttpResponse

from accounts.models import User
from accounts.roles import Role
from accounts.sign_in_audit import record_failed_sign_in


class ClosedSignUpAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def pre_login(self, request: HttpRequest, user: User, **login: Any) -> HttpResponse | None:
        """Refuse a service account like a closed one, whatever password it may still have from earlier times."""
        refusal: HttpResponse | None = super().pre_login(request, user, **login)
        if refusal is None and user.role == Role.SERVICE:
            record_failed_sign_in(credentials={"email": user.email})
            refusal = self.respond_user_inactive(request, user)
        return refusal

    def send_password_reset_mail(self, user: User, email: str, context: dict[str, Any]) -> None:
        if user.role != Role.SERVICE:
            super().send_password_reset_mail(user, email, context)
