"""What the pages must know about signing in."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def signing_in(request: HttpRequest) -> dict[str, Any]:
    return {
        "idle_seconds": settings.IDLE_SECONDS,
        "idle_warning_seconds": settings.IDLE_WARNING_SECONDS,
        "oidc_name": settings.OIDC_NAME if settings.OIDC_ISSUER else "",
    }
