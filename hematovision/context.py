"""What every page may show about the instance itself."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def instance(request: HttpRequest) -> dict[str, Any]:
    # A request that was refused early has no user yet, and its error page must not fail for that.
    user = getattr(request, "user", None)
    if settings.PRODUCTION or (user and user.is_authenticated):
        return {"demo_mode": not settings.PRODUCTION}
    return {"demo_mode": True, "demo_users": demo_addresses()}


def demo_addresses() -> list[str]:
    """The demo users' addresses, for buttons that fill them in; a password never reaches a page."""
    announced = settings.VAR_DIR / "demo-users"
    if not announced.exists():
        return []
    return [line.split(" ", 1)[0] for line in announced.read_text().splitlines()]
