"""Models that were registered, and the worker processes that hold one."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q


class ModelVersion(models.Model):
    """A model bundle that was registered. Its labels are those it can say, in output order."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=80)
    version = models.CharField(max_length=40)
    sha256 = models.CharField("SHA-256 of the model file", max_length=64)
    labels = models.JSONField()
    preprocessing_version = models.CharField(max_length=40)
    metrics = models.JSONField(default=dict)
    active = models.BooleanField(default=False)
    registered_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["-registered_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["name", "version"], name="model_version_unique"),
            models.UniqueConstraint(fields=["active"], condition=Q(active=True), name="at_most_one_active_model"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def bundle_name(self) -> str:
        return f"{self.name}-{self.version}"


class WorkerHeartbeat(models.Model):
    """A worker process that is, or was, there; and the model that it holds, or the code of why it holds none."""

    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    model_sha256 = models.CharField(max_length=64, blank=True)
    model_code = models.CharField(max_length=40, blank=True)
    seen_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["host", "pid"], name="worker_heartbeat_unique")]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
