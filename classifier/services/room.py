"""Back-pressure: a program that sends faster than the workers classify is asked to come again later."""

from django.conf import settings

from accounts.models import User
from accounts.roles import Role
from classifier.errors import QueueFull
from classifier.models import CellImage


def require_room(actor: User) -> None:
    """Raises QueueFull (queue_full) where a service account would add to a queue that is at QUEUE_LIMIT.

    People are never refused: who stands at the microscope has nobody to send the picture again.
    """
    if actor.role != Role.SERVICE:
        return
    # Counts no further than the limit.
    waiting = CellImage.objects.claimable().order_by()
    if waiting[: settings.QUEUE_LIMIT].count() >= settings.QUEUE_LIMIT:
        message = "So many images wait to be classified that no more are taken. Come again when Retry-After says so."
        raise QueueFull("queue_full", message)
