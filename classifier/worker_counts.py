"""Running totals of what the workers do, for the metrics: written with the work itself, read in one small query.

Whatever is counted here can't be counted afterwards at a price that a scrape may have: a million predictions are a
scan, and an expired claim leaves no row. Nothing clinical is read from these totals.
"""

import os
import socket
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from zlib import crc32

from django.db import models, transaction

from accounts.built_statements import BuiltSelect, BuiltUpdate, Given
from classifier.models import WorkerCounts

# So few rows that reading them is nothing, so many that two workers seldom want the same one.
SLOTS = 16
# Upper ends in seconds: what a person waits, what an ordinary batch takes, what a night's batch takes.
BOUNDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
Figure = tuple[str, ...]
SLOT = WorkerCounts.objects.filter(slot=Given("slot", models.PositiveSmallIntegerField()))
LOCK_TOTALS = BuiltSelect(SLOT.select_for_update().values_list("totals"))
KEEP_TOTALS = BuiltUpdate(SLOT, totals=Given("totals", models.JSONField()))


def own_slot() -> int:
    return crc32(f"{socket.gethostname()}:{os.getpid()}".encode()) % SLOTS


def count(figures: Mapping[Figure, float]) -> None:
    """Add to the totals of this process's slot, in the transaction of what is counted.

    It comes last there: from here to the commit, whoever shares the slot waits.
    """
    added = {as_key(figure): number for figure, number in figures.items() if number}
    if not added:
        return
    with transaction.atomic(savepoint=False):
        slot = own_slot()
        found = LOCK_TOTALS.rows(slot=slot)
        # The first of the slot: whoever comes second waits for it, and finds its row.
        totals = found[0][0] if found else WorkerCounts.objects.select_for_update().get_or_create(slot=slot)[0].totals
        for key, number in added.items():
            totals[key] = totals.get(key, 0) + number
        KEEP_TOTALS.update(slot=slot, totals=totals)


def totals() -> dict[Figure, float]:
    """All slots together."""
    together: defaultdict[Figure, float] = defaultdict(float)
    for row in WorkerCounts.objects.all():
        for key, number in row.totals.items():
            together[tuple(key.split("|"))] += number
    return dict(together)


def as_key(figure: Figure) -> str:
    return "|".join(figure)


def seconds_counted(name: str, label: str, seconds: list[float]) -> dict[Figure, float]:
    """The figures by which these durations enter the histogram `name` of `label`: one a bucket, and their sum."""
    figures: defaultdict[Figure, float] = defaultdict(float)
    for each in seconds:
        place = bisect_left(BOUNDS, each)
        figures[name, label, str(BOUNDS[place]) if place < len(BOUNDS) else "+Inf"] += 1
        figures[name, label, "sum"] += each
    return dict(figures)
