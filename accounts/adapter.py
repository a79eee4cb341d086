"""How allauth behaves here: accounts are made by an administrator, and people alone sign in on the pages."""

import time
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse

from accounts.models import User
from accounts.roles import Role
from accounts.sign_in_audit import record_failed_sign_in, record_locked_sign_in


class ClosedSignUpAdapter(DefaultAccountAdapter):
    error_messages = {  # noqa: RUF012 - allauth's own attribute
        **DefaultAccountAdapter.error_messages,
        "too_many_login_attempts": "Too many failed attempts. Wait 5 minutes, then try again; the right one is refused "
        "until then as well.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Refuse, before looking at the password, an address or a place from which too many were wrong."""
        try:
            super().pre_authenticate(request, **credentials)
        except ValidationError:
            record_locked_sign_in(user=User.objects.filter(email__iexact=credentials.get("email") or "").first())
            raise

    def pre_login(self, request: HttpRequest, user: User, **login: Any) -> HttpResponse | None:
        """Refuse a service account like a closed one, whatever password it may still have from earlier times."""
        refusal: HttpResponse | None = super().pre_login(request, user, **login)
        if refusal is None and user.role == Role.SERVICE:
            record_failed_sign_in(credentials={"email": user.email})
            refusal = self.respond_user_inactive(request, user)
        return refusal

    def get_login_stages(self) -> list[str]:
        ours = {"allauth.mfa.stages.AuthenticateStage": "accounts.stages.CodeStage"}
        return [ours.get(stage, stage) for stage in super().get_login_stages()]

    def is_reauthentication_required(self, *, app: str, **kwargs: Any) -> bool:
        """Not right after signing in: who has just typed the password need not type it again."""
        user = self.request.user
        times = [record["at"] for record in get_authentication_records(self.request, user) if record["method"] != "mfa"]
        fresh = bool(times) and time.time() - max(times) < app_settings.REAUTHENTICATION_TIMEOUT
        return not fresh and bool(super().is_reauthentication_required(app=app, **kwargs))

    def send_password_reset_mail(self, user: User, email: str, context: dict[str, Any]) -> None:
        if user.role != Role.SERVICE:
            super().send_password_reset_mail(user, email, context)
