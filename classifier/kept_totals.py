"""Totals over everything, without reading everything: what was counted once stays counted.

The rows that are counted here are never deleted, and a row's time is that of its writing. So the cache keeps the totals
up to a moment that is over for good, and only what came since is read.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.cache import cache
from django.db.models import Count, F, QuerySet, Sum
from django.utils import timezone

from accounts.models import Laboratory
from classifier.models import CellImage, ImageStatus, Prediction

# Longer than any transaction is open, and than clocks are apart.
SETTLED = timedelta(hours=1)
# How much is read anew before what was counted is kept again.
STEP = timedelta(hours=1)
# Then everything is counted anew, whatever a clock did meanwhile.
KEPT_SECONDS = 7 * 24 * 3600.0
IMAGES, PREDICTIONS = KEPT = ("kept-totals:images", "kept-totals:predictions")
Totals = dict[str, list[int]]


def totals_by(name: str, rows: QuerySet[Any], *, by: str, at: str, **figures: Any) -> Totals:
    """`figures` of all rows, by the text of the column `by`; `at` is the column of their time."""
    now = timezone.now()
    until = now - SETTLED
    begun, begin, kept = cache.get(name, (now, None, {}))
    if begin is None or begin < until - STEP or begin > until + STEP:
        first = begin is None or begin > until
        begun = now if first else begun
        between = rows.filter(**{f"{at}__lt": until}, **({} if first else {f"{at}__gte": begin}))
        begin, kept = until, added({} if first else kept, grouped(between, by, figures))
        cache.set(name, (begun, begin, kept), KEPT_SECONDS - (now - begun).total_seconds())
    return added(kept, grouped(rows.filter(**{f"{at}__gte": begin}), by, figures))


def grouped(rows: QuerySet[Any], by: str, figures: Mapping[str, Any]) -> Totals:
    # By laboratory as well: so SQLite too begins at the laboratories' latest rows, not at an index on `by`.
    own = rows.filter(laboratory__in=Laboratory.objects.order_by().values("pk")).order_by()
    found: Totals = {}
    for _, key, *values in own.values_list("laboratory", F(by)).annotate(**figures).order_by():
        found = added(found, {str(key): [value or 0 for value in values]})
    return found


def added(one: Totals, other: Totals) -> Totals:
    zero = [0] * len(next(iter((one or other).values()), []))
    return {
        key: [a + b for a, b in zip(one.get(key, zero), other.get(key, zero), strict=True)] for key in {**one, **other}
    }


def forget_images() -> None:
    """Count all images anew, as the bytes of one that was counted have changed: a picture that came again."""
    cache.delete(IMAGES)


def images_by_laboratory() -> dict[str, tuple[int, int]]:
    """Images and their stored bytes by the laboratory's id, void ones too."""
    figures = {"images": Count("pk"), "bytes": Sum("stored_bytes")}
    found = totals_by(IMAGES, CellImage.objects.all(), by="laboratory", at="uploaded_at", **figures)
    return {laboratory: (images, size) for laboratory, (images, size) in found.items()}


def predictions_by_version() -> dict[str, int]:
    """Predictions by the model version's id."""
    rows = Prediction.objects.all()
    found = totals_by(PREDICTIONS, rows, by="model_version", at="created_at", n=Count("pk"))
    return {version: n for version, (n,) in found.items()}


def images_by_status() -> dict[str, int]:
    """Images of all laboratories by status. Those that wait for somebody are counted; the others are reviewed."""
    # A total that was read before the rest can't be too large.
    total = sum(images for images, _ in images_by_laboratory().values())
    open_ones = CellImage.objects.filter(status__in=[each for each in ImageStatus if each != ImageStatus.REVIEWED])
    counted = dict(open_ones.order_by().values_list("status").annotate(n=Count("pk")))
    return {**counted, ImageStatus.REVIEWED: max(0, total - sum(counted.values()))}
