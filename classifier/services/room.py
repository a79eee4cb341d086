"""Back-pressure: a program that sends faster than the workers classify is asked to come again later."""

import threading
import time

from django.conf import settings

from accounts.models import User
from accounts.roles import Role
from classifier.errors import QueueFull
from classifier.models import CellImage

# How long a count is believed, and of the room that it found how much is given away before the next one. Other
# processes count for themselves, so all of them together may add no more than their number times this share.
BELIEVED_SECONDS, SHARE = 1.0, 0.1


class Room:
    """How many images may be queued before the queue is counted again: that takes long where it is long."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.left, self.until = 0, 0.0

    def take(self) -> bool:
        """Whether there is room for one more."""
        now = time.monotonic()
        with self.lock:
            if self.left > 0 and now < self.until:
                self.left -= 1
                return True
        free: int = settings.QUEUE_LIMIT - waiting()
        with self.lock:
            self.left, self.until = int(free * SHARE) - 1, now + BELIEVED_SECONDS
        return free > 0


def waiting() -> int:
    """How many images wait for a worker; counts no further than the limit."""
    return CellImage.objects.claimable().order_by()[: settings.QUEUE_LIMIT].count()


room = Room()


def require_room(actor: User) -> None:
    """Raises QueueFull (queue_full) where a service account would add to a queue that is at QUEUE_LIMIT.

    People are never refused: who stands at the microscope has nobody to send the picture again.
    """
    if actor.role == Role.SERVICE and not room.take():
        message = "So many images wait to be classified that no more are taken. Come again when Retry-After says so."
        raise QueueFull("queue_full", message)
