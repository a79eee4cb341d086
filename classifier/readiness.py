"""Why images may stay queued: what stands between the queue and a classification, as a code and a sentence."""

from dataclasses import dataclass

from django.db.models import QuerySet
from django.db.models.functions import Now

from classifier.active_model import active_version, verified_card
from classifier.heartbeat import SEEN_WITHIN
from classifier.models import WorkerHeartbeat
from ml.errors import ModelUnavailable


@dataclass(frozen=True)
class Obstacle:
    """One reason why nothing is classified at present. `code` is a stable slug."""

    code: str
    message: str


def model_obstacle() -> Obstacle | None:
    """None when the active model's files are there and unaltered."""
    try:
        verified_card(active_version())
    except ModelUnavailable as error:
        return Obstacle(error.code, f"{error.message} Images stay queued until this is mended.")
    return None


def seen_workers() -> QuerySet[WorkerHeartbeat]:
    """Who was here a moment ago. One from the future is from before the clock was set back, and tells nothing."""
    return WorkerHeartbeat.objects.filter(seen_at__range=(Now() - SEEN_WITHIN, Now() + SEEN_WITHIN))


def worker_obstacle() -> Obstacle | None:
    """None when a worker that holds a model was seen a short time ago."""
    seen = seen_workers()
    if not seen.exists():
        return Obstacle("no_worker", "No worker is running. Images stay queued until one is started.")
    if not seen.exclude(model_sha256="").exists():
        return Obstacle("worker_without_model", "The worker could not load the model. Images stay queued.")
    return None


def queue_obstacle() -> Obstacle | None:
    """The first thing that keeps queued images from being classified."""
    return model_obstacle() or worker_obstacle()
