"""How allauth's second factor behaves here: its secrets are encrypted at rest, and a policy can keep it on."""

from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from django.shortcuts import render

from accounts import second_factor
from accounts.models import User
from accounts.secret_text import SecretUnreadable, decrypt, encrypt


class SecondFactorAdapter(DefaultMFAAdapter):
    error_messages = {  # noqa: RUF012 - allauth's own attribute
        **DefaultMFAAdapter.error_messages,
        "incorrect_code": "This code is not right, or was used before. Wait for the next one and try again.",
        "cannot_delete_authenticator": "Your role needs a second factor here, so it can't be turned off.",
    }

    def encrypt(self, text: str) -> str:
        return encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        try:
            return decrypt(encrypted_text)
        except SecretUnreadable as error:
            # The key is gone: nothing can be checked any more, on whatever page that comes out.
            raise ImmediateHttpResponse(render(context.request, "mfa/unreadable.html", status=503)) from error

    def can_delete_authenticator(self, authenticator: Authenticator) -> bool:
        user: User = authenticator.user
        return not second_factor.is_required(user)
