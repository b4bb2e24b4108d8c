"""Connections that wait for their server only for a time: psycopg waits in the method ``wait``.

``statement_timeout`` is no help: a server that hangs, or that is away behind a pooler, keeps none.
"""

import time
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

CONFIGURE_S = 2.0  # for what Django sends when the connection is new


class BoundedConnection(psycopg.Connection[Any]):
    """A statement without an answer in time raises OperationalError and ends the connection."""

    def remaining_s(self) -> float:
        raise NotImplementedError

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        remaining_s = max(self.remaining_s(), 0.0)
        if remaining_s == float("inf"):
            return super().wait(*args, **kwargs)
        end = time.monotonic() + remaining_s
        try:
            return super().wait(*args, **{"timeout": remaining_s} | kwargs)
        except psycopg.OperationalError:
            if time.monotonic() >= end:
                self.pgconn.finish()
            raise


class DeadlineConnection(BoundedConnection):
    """``deadline``, in time.monotonic(), for whatever is sent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline = time.monotonic() + CONFIGURE_S

    def remaining_s(self) -> float:
        return self.deadline - time.monotonic()


class PoolerConnection(BoundedConnection):
    """Through a pooler: a statement that begins outside of a transaction may wait for a session.

    PgBouncer alone lets it wait 120 s. Inside a transaction there is a session, and no bound.
    """

    session_s = 10.0

    def remaining_s(self) -> float:
        is_idle = self.pgconn.transaction_status == TransactionStatus.IDLE
        return self.session_s if is_idle else float("inf")
