"""A connection that waits for its server only until a deadline."""

import time
from typing import Any

import psycopg

CONFIGURE_S = 2.0  # for what Django sends when the connection is new


class DeadlineConnection(psycopg.Connection[Any]):
    """``deadline``, in time.monotonic(): a statement without an answer by then ends the connection.

    It raises OperationalError. ``statement_timeout`` does not help against a server that hangs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline = time.monotonic() + CONFIGURE_S

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """psycopg waits by it for each answer."""
        remaining_s = max(self.deadline - time.monotonic(), 0.0)
        try:
            return super().wait(*args, **{"timeout": remaining_s} | kwargs)
        except psycopg.OperationalError:
            if time.monotonic() >= self.deadline:
                self.pgconn.finish()
            raise
