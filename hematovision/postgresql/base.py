"""Django's PostgreSQL, with a cheaper look at whether a kept connection still stands, and prepared statements."""

import select
import time
from typing import Any

from django.db.backends.postgresql import base, operations
from psycopg import ClientCursor, sql

# A connection that was seen to work so lately has not been cut off by a firewall for idling.
FRESH_SECONDS = 5.0
# What a connection has sent so often is prepared; one that is opened for a single act sends nothing for it.
PREPARED_AFTER = 3


class DatabaseOperations(operations.DatabaseOperations):
    """Shows a statement whose values were sent beside it as it reads with them, as Django's own cursors show theirs."""

    def last_executed_query(self, cursor: Any, sql: Any, params: Any) -> str:
        sent_beside = isinstance(cursor, base.ServerBindingCursor)
        if sent_beside:
            return ClientCursor(cursor.connection).mogrify(sql, params)
        return super().last_executed_query(cursor, sql, params)


class DatabaseWrapper(base.DatabaseWrapper):
    """Asks the server whether it is there (`SELECT 1`) only after a pause.

    A server that ended, or that ended this connection, has said so: there is something to read. Asking it at each
    request would take as long as finding a row.
    """

    ops_class = DatabaseOperations
    worked_at = -FRESH_SECONDS
    prepares = False

    def is_usable(self) -> bool:
        if self.errors_occurred:
            # Not kept: should a table have changed, what this connection has prepared would fail again and again.
            return False
        now = time.monotonic()
        if now - self.worked_at < FRESH_SECONDS and self.is_quiet():
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

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        # Only what `prepared_cursor` sends: Django's own cursors write the values into each statement.
        if "prepare_threshold" not in self.settings_dict["OPTIONS"]:
            params["prepare_threshold"] = PREPARED_AFTER
        return params

    def prepared_cursor(self) -> Any:
        """A cursor for the few statements that are sent again and again: the server reads and plans each of them once
        a connection, which takes it as long as answering them.
        """
        self.prepares = True
        try:
            return self.cursor()
        finally:
            self.prepares = False

    def create_cursor(self, name: str | None = None) -> Any:
        if not self.prepares:
            return super().create_cursor(name)
        # Here, and not before: `cursor` may have found the connection broken, and opened another one.
        own = self.connection.cursor_factory
        self.connection.cursor_factory = base.ServerBindingCursor
        try:
            return super().create_cursor(name)
        finally:
            self.connection.cursor_factory = own

    def literal(self, value: Any) -> str:
        """The value as it is written into a statement that is sent with parameters."""
        return sql.quote(value).replace("%", "%%")
