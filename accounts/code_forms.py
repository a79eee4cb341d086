"""The forms that ask for a code of the second factor. A code opens once; who guesses is locked out, and recorded."""

from allauth.core.internal.cryptokit import normalize_user_code
from allauth.mfa.adapter import get_adapter
from allauth.mfa.base.forms import AuthenticateForm, BaseAuthenticateForm, ReauthenticateForm
from allauth.mfa.models import Authenticator
from django.core.cache import cache
from django.core.exceptions import ValidationError

from accounts.models import User
from accounts.sign_in_audit import record_locked_sign_in

# Longer than any code is good for: its own step and the tolerated ones around it.
USED_FOR_S = 300


class CodeOpensOnce(BaseAuthenticateForm):
    def clean_code(self) -> str:
        try:
            code: str = super().clean_code()
        except ValidationError as refusal:
            if refusal.code == "too_many_login_attempts":
                record_locked_sign_in(user=self.user)
            raise
        if self.authenticator.type == Authenticator.Type.TOTP and not is_first_use(self.user, code):
            self._emit_authentication_failed(self.authenticator)
            raise get_adapter().validation_error("incorrect_code")
        return code


def is_first_use(user: User, code: str) -> bool:
    """Whether a right code opens for the first time, however it was typed; from now on it opens nothing.

    allauth forgets a used code after one step, before the tolerated step after it has passed.
    """
    return bool(cache.add(f"code-used:{user.pk}:{normalize_user_code(code)}", True, USED_FOR_S))


class SignInForm(CodeOpensOnce, AuthenticateForm):
    pass


class AgainForm(CodeOpensOnce, ReauthenticateForm):
    pass
