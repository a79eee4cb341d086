"""Django's PostgreSQL, with a cheaper look at whether a kept connection still stands."""

import select
import time

from django.db.backends.postgresql import base

# A connection that was seen to work so lately has not been cut off by a firewall for idling.
FRESH_SECONDS = 5.0


class DatabaseWrapper(base.DatabaseWrapper):
    """Asks the server whether it is there (`SELECT 1`) only after a pause.

    A server that ended, or that ended this connection, has said so: there is something to read. Asking it at each
    request would take as long as finding a row.
    """

    worked_at = -FRESH_SECONDS

    def is_usable(self) -> bool:
        now = time.monotonic()
        if not self.errors_occurred and now - self.worked_at < FRESH_SECONDS and self.is_quiet():
            return True
        usable: bool = super().is_usable()
        if usable:
            self.worked_at = now
        return usable

    def is_quiet(self) -> bool:
        """Whether the connection is open on our side, and the server has sent nothing that we did not ask for."""
        if self.connection is None or self.connection.closed:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)
