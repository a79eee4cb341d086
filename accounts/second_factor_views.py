"""Setting the second factor up: allauth's page, after which this session counts as one with it."""

from typing import Any

from allauth.mfa.recovery_codes.views import view_recovery_codes
from allauth.mfa.totp.views import ActivateTOTPView
from django.http import HttpResponse
from django.views.decorators.cache import never_cache

from accounts import second_factor
from accounts.code_forms import is_first_use


class SetUpView(ActivateTOTPView):
    def form_valid(self, form: Any) -> HttpResponse:
        response: HttpResponse = super().form_valid(form)
        is_first_use(self.request.user, form.cleaned_data["code"])
        second_factor.was_set_up(request=self.request, user=self.request.user)
        return response

    def get_context_data(self, **extra: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**extra)
        return {**context, "is_required": second_factor.is_required(self.request.user)}


# The key is on the one, the codes are on the other.
set_up = never_cache(SetUpView.as_view())
recovery_codes = never_cache(view_recovery_codes)
