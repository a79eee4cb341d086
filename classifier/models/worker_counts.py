"""What workers have counted so far."""

from django.db import models


class WorkerCounts(models.Model):
    """Running totals of the workers that share a slot: figure -> number. `classifier.worker_counts` writes them.

    A few rows, each added to by few processes: nobody waits long for one, and reading them costs the same over a
    thousand images and over a million.
    """

    slot = models.PositiveSmallIntegerField(primary_key=True)
    totals = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "worker counts"

    def __str__(self) -> str:
        return str(self.slot)
