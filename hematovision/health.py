"""For load balancers and operators: is the process alive, and could it classify an image now?"""

from collections.abc import Callable

import structlog
from celery import current_app
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from kombu.exceptions import OperationalError

from classifier import readiness

logger = structlog.get_logger(__name__)
Check = Callable[[], str | None]


def healthz(request: HttpRequest) -> JsonResponse:
    """Answers as long as the process does."""
    return JsonResponse({"ok": True})


@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 only when migrated, the broker is up, a worker was seen and the model is usable; else 503 with codes."""
    checks = {name: {"ok": code is None, "code": code} for name, code in results().items()}
    ready = all(check["ok"] for check in checks.values())
    return JsonResponse({"ready": ready, "checks": checks}, status=200 if ready else 503)


def results() -> dict[str, str | None]:
    """The code of what is wrong, or None, of each check. Without a database the others that need it can't be asked."""
    database: dict[str, Check] = {"migrations": migrations, "model": model, "worker": worker}
    found: dict[str, str | None] = {"database": None, "broker": broker()}
    for name, check in database.items():
        try:
            found[name] = check()
        except DatabaseError as error:
            logger.warning("readiness_check_failed", check=name, error=type(error).__name__)
            found[name] = "database_unavailable"
    found["database"] = "database_unavailable" if found["migrations"] == "database_unavailable" else None
    return found


def migrations() -> str | None:
    executor = MigrationExecutor(connection)
    return "migrations_pending" if executor.migration_plan(executor.loader.graph.leaf_nodes()) else None


def broker() -> str | None:
    try:
        with current_app.connection_for_write() as celery_broker:
            celery_broker.ensure_connection(max_retries=1, interval_start=0, timeout=2)
    except (OperationalError, OSError):
        return "broker_unavailable"
    return None


def model() -> str | None:
    obstacle = readiness.model_obstacle()
    return obstacle.code if obstacle else None


def worker() -> str | None:
    obstacle = readiness.worker_obstacle()
    return obstacle.code if obstacle else None
