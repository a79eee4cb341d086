"""`/metrics` in the format of Prometheus: for those who watch over the instance, and for nobody else.

Everything comes from the database and the system at the moment of the scrape, so it is the same whichever of many web
processes answers. The numbers of the clinical flow are made in `classifier.metrics`.
"""

import platform
from collections.abc import Iterator
from ipaddress import ip_address

import django
import structlog
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from classifier import metrics as clinical
from classifier.storage_use import look
from hematovision.logs import client_address
from hematovision.version import VERSION

logger = structlog.get_logger(__name__)
# Written by proxies: with one of these on it, a request from this very machine is somebody else's.
FORWARDED = ("X-Forwarded-For", "X-Real-Ip", "Forwarded", "Via")


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """The numbers; 404 for whoever may not read them, as if there were nothing."""
    if not may_read(request):
        raise Http404
    registry = CollectorRegistry()
    registry.register(Instance())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type)


def may_read(request: HttpRequest) -> bool:
    """Who sends the token; where none is set, who asks from this very machine."""
    if settings.METRICS_TOKEN:
        expected = f"Bearer {settings.METRICS_TOKEN}"
        return constant_time_compare(request.headers.get("Authorization", ""), expected)
    if settings.TRUSTED_PROXIES == 0 and any(name in request.headers for name in FORWARDED):
        return False
    address = client_address(request)
    return address is not None and ip_address(address).is_loopback


class Instance(Collector):
    def describe(self) -> list[Metric]:
        return []  # without it, registering would collect everything once more

    def collect(self) -> Iterator[Metric]:
        yield build()
        yield from disk()
        # All of them or none: half of a scrape would look like an instance at rest.
        try:
            found = list(clinical.families())
        except DatabaseError as error:
            logger.warning("metrics_without_database", error=type(error).__name__)
            found = []
        yield GaugeMetricFamily(
            "hematovision_database_up", "1 when the numbers below could be read.", 1 if found else 0
        )
        yield from found


def build() -> Metric:
    family = GaugeMetricFamily(
        "hematovision_build_info", "What runs here.", labels=["version", "python", "django", "database"]
    )
    family.add_metric([VERSION, platform.python_version(), django.get_version(), connection.vendor], 1)
    return family


def disk() -> Iterator[Metric]:
    found = look()
    if found:
        yield GaugeMetricFamily("hematovision_disk_free_bytes", "Free on the disk of the originals.", found.free)
        yield GaugeMetricFamily("hematovision_disk_total_bytes", "Size of the disk of the originals.", found.total)
