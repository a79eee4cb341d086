"""The steps of signing in."""

from allauth.account.authentication import get_authentication_records
from allauth.mfa.stages import AuthenticateStage
from django.conf import settings
from django.http import HttpRequest


class CodeStage(AuthenticateStage):
    """Asks for the code of the second factor, unless a provider that asks for one itself has sent the user here."""

    def _should_handle(self, request: HttpRequest) -> bool:
        ways = {record["method"] for record in get_authentication_records(request, self.login.user)}
        if settings.OIDC_SATISFIES_SECOND_FACTOR and "oidc" in ways:
            return False
        return bool(super()._should_handle(request))
