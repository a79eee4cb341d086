"""For load balancers and operators: is the process alive, and could it classify an image now?"""

from collections.abc import Callable
from functools import cache

import structlog
from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from kombu.exceptions import OperationalError

from classifier import readiness, storage_use
from classifier.storage import private_files

logger = structlog.get_logger(__name__)
Check = Callable[[], str | None]
# Said of what still works; every other code means that it does not.
WARNINGS = {"disk_low"}


def healthz(request: HttpRequest) -> JsonResponse:
    """Answers as long as the process does."""
    return JsonResponse({"ok": True})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 only when an image that is uploaded now would be stored and classified now; else 503 with codes."""
    checks = {name: {"ok": code is None or code in WARNINGS, "code": code} for name, code in results().items()}
    ready = all(check["ok"] for check in checks.values())
    return JsonResponse({"ready": ready, "checks": checks}, status=200 if ready else 503)


def results() -> dict[str, str | None]:
    """The code of what is wrong, or None, of each check. Without a database the others that need it can't be asked."""
    database: dict[str, Check] = {"migrations": migrations, "model": model, "worker": worker}
    found: dict[str, str | None] = {"database": None, "broker": broker(), "disk": disk(), "media": media()}
    for name, check in database.items():
        try:
            found[name] = check()
        except DatabaseError as error:
            logger.warning("readiness_check_failed", check=name, error=type(error).__name__)
            found[name] = "database_unavailable"
    found["database"] = "database_unavailable" if found["migrations"] == "database_unavailable" else None
    return found


def migrations() -> str | None:
    applied = MigrationRecorder(connection).applied_migrations()
    return None if newest_migrations() <= applied.keys() else "migrations_pending"


@cache
def newest_migrations() -> frozenset[tuple[str, str]]:
    """The last one of each app: the code's, which does not change while it runs."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())


def broker() -> str | None:
    try:
        with current_app.connection_for_write() as celery_broker:
            celery_broker.ensure_connection(max_retries=1, interval_start=0, timeout=2)
    except (OperationalError, OSError):
        return "broker_unavailable"
    return None


def disk() -> str | None:
    """Room for the next pictures: below the floor the instance is not ready, below the banner's limit it warns."""
    seen = storage_use.look()
    if seen is None:
        return None
    if seen.free < settings.DISK_FREE_FLOOR:
        return "disk_full"
    return "disk_low" if seen.is_nearly_full else None


def media() -> str | None:
    """Whether a picture could be stored now."""
    return private_files().obstacle()


def model() -> str | None:
    obstacle = readiness.model_obstacle()
    return obstacle.code if obstacle else None


def worker() -> str | None:
    obstacle = readiness.worker_obstacle()
    return obstacle.code if obstacle else None
