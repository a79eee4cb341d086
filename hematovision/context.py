"""What every page may show about the instance itself."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from classifier.services.notifications import unread_count


def instance(request: HttpRequest) -> dict[str, Any]:
    # A request that was refused early has no user yet, and its error page must not fail for that.
    user = getattr(request, "user", None)
    if user and user.is_authenticated:
        # Asked for by whole pages only: a fragment that does not show the number costs no query.
        unread = SimpleLazyObject(lambda: unread_count(user))
        return {"demo_mode": not settings.PRODUCTION, "unread_notifications": unread}
    if settings.PRODUCTION:
        return {"demo_mode": False}
    return {"demo_mode": True, "demo_users": demo_addresses()}


def demo_addresses() -> list[str]:
    """The demo users' addresses, for buttons that fill them in; a password never reaches a page."""
    announced = settings.VAR_DIR / "demo-users"
    if not announced.exists():
        return []
    return [line.split(" ", 1)[0] for line in announced.read_text().splitlines()]
