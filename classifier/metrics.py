"""What the clinical flow tells to those who watch over it, from the database: right however many processes run.

No patient data: labels are statuses, codes, cell types and model versions. Every query reads a few rows, however many
there are: totals over everything are kept (`classifier.kept_totals`, `classifier.worker_counts`).
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import Count, Min, QuerySet
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from accounts.seals import unsealed_events
from classifier import worker_counts
from classifier.kept_totals import images_by_status
from classifier.models import Batch, CellImage, Export, ImageStatus, ModelVersion, Priority, WebhookMessage
from classifier.readiness import seen_workers
from classifier.worker_counts import Figure

Totals = dict[Figure, float]


def families() -> Iterator[Metric]:
    """Everything that needs the database. Raises DatabaseError."""
    totals = worker_counts.totals()
    names = {str(version.pk): str(version) for version in ModelVersion.objects.defer("metrics")}
    yield from queue()
    yield from workers()
    yield from models(names)
    yield predictions(totals, names)
    yield failures(totals)
    yield claims_expired(totals)
    yield from durations(totals)
    yield from waiting_rows()


def queue() -> Iterator[Metric]:
    found = images_by_status()
    images = GaugeMetricFamily("hematovision_images", "Images by status, void ones too.", labels=["status"])
    for status in ImageStatus:
        images.add_metric([status], found.get(status, 0))
    yield images
    claimable = CellImage.objects.claimable().order_by("priority").values("priority")
    waiting: dict[int, tuple[int, datetime | None]] = {
        row["priority"]: (row["count"], row["oldest"])
        for row in claimable.annotate(count=Count("*"), oldest=Min("queued_at"))
    }
    # What a cancelled batch voided stays queued and on hold, and waits for nobody.
    on_hold = CellImage.objects.filter(status=ImageStatus.QUEUED, on_hold=True, cancelled=False)
    yield GaugeMetricFamily(
        "hematovision_images_on_hold", "Queued images of batches that are not started or paused.", on_hold.count()
    )
    length = GaugeMetricFamily("hematovision_queue_images", "Images that wait for a worker.", labels=["priority"])
    oldest = GaugeMetricFamily(
        "hematovision_queue_oldest_seconds", "How long the oldest of them has waited; 0 if none.", labels=["priority"]
    )
    for priority in Priority:
        count, since = waiting.get(priority, (0, None))
        length.add_metric([priority.name.lower()], count)
        oldest.add_metric([priority.name.lower()], age(since))
    yield length
    yield oldest


def workers() -> Iterator[Metric]:
    seen = GaugeMetricFamily(
        "hematovision_workers",
        "Worker processes that were seen a moment ago, by the model that they hold or the code of why they hold none.",
        labels=["sha256", "code"],
    )
    for sha256, code, count in (
        seen_workers().order_by("model_sha256").values_list("model_sha256", "model_code").annotate(count=Count("*"))
    ):
        seen.add_metric([sha256, code], count)
    yield seen


def models(names: dict[str, str]) -> Iterator[Metric]:
    active = GaugeMetricFamily(
        "hematovision_active_model_info", "The model that new images are classified with.", labels=["model", "sha256"]
    )
    for version in ModelVersion.objects.filter(active=True).defer("metrics"):
        active.add_metric([names[str(version.pk)], version.sha256], 1)
    yield active


def predictions(totals: Totals, names: dict[str, str]) -> Metric:
    family = CounterMetricFamily(
        "hematovision_predictions",
        "Pre-classifications by model and cell type; `unidentified` where the model abstained.",
        labels=["model", "label"],
    )
    for (name, *labels), number in sorted(totals.items()):
        if name == "predictions":
            family.add_metric([names.get(labels[0], labels[0]), labels[1]], number)
    return family


def failures(totals: Totals) -> Metric:
    family = CounterMetricFamily("hematovision_failures", "Images that failed, by code.", labels=["code"])
    for (name, *labels), number in sorted(totals.items()):
        if name == "failures":
            family.add_metric(labels, number)
    return family


def claims_expired(totals: Totals) -> Metric:
    return CounterMetricFamily(
        "hematovision_claims_expired",
        "Images that were taken back from workers which did not complete them.",
        totals.get(("claims_expired",), 0),
    )


def durations(totals: Totals) -> Iterator[Metric]:
    wait = HistogramMetricFamily(
        "hematovision_wait_seconds",
        "From being queued to the claim under which an image was classified.",
        labels=["priority"],
    )
    for priority in Priority:
        label = priority.name.lower()
        wait.add_metric([label], *histogram(totals, "wait", label))
    yield wait
    run = HistogramMetricFamily("hematovision_run_seconds", "From the claim of an image to its written prediction.")
    run.add_metric([], *histogram(totals, "run", ""))
    yield run


def histogram(totals: Totals, name: str, label: str) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets and the sum, as Prometheus has them."""
    ends = [*map(str, worker_counts.BOUNDS), "+Inf"]
    below = 0.0
    buckets = []
    for end in ends:
        below += totals.get((name, label, end), 0)
        buckets.append((end, below))
    return buckets, totals.get((name, label, "sum"), 0.0)


def waiting_rows() -> Iterator[Metric]:
    """What else waits for the machine: how much, and for how long the oldest has."""
    due = WebhookMessage.objects.filter(next_try_at__isnull=False)
    exports = Export.objects.filter(finished_at=None)
    for name, words, row in (
        ("webhooks_waiting", "Webhook messages that are not acknowledged yet", oldest_of(due, "at")),
        ("exports_waiting", "Exports that are not written yet", oldest_of(exports, "requested_at")),
        ("audit_unsealed", "Audit events that no seal lists yet", oldest_of(unsealed_events(), "at")),
    ):
        yield GaugeMetricFamily(f"hematovision_{name}", f"{words}.", row["count"])
        yield GaugeMetricFamily(
            f"hematovision_{name}_oldest_seconds", f"{words}: the age of the oldest, 0 if none.", age(row["oldest"])
        )
    open_batches = Batch.objects.filter(finished_at=None, cancelled_at=None)
    yield GaugeMetricFamily("hematovision_batches_open", "Batches that are not at their end.", open_batches.count())


def oldest_of(rows: QuerySet[Any], field: str) -> dict[str, Any]:
    return rows.order_by().aggregate(count=Count("*"), oldest=Min(field))


def age(moment: datetime | None) -> float:
    """Seconds since then; 0 for nothing and for what a clock elsewhere puts into the future."""
    return max(0.0, (timezone.now() - moment).total_seconds()) if moment else 0.0
