"""Django's PostgreSQL backend that replaces pooled connections which are of no use any more.

The server has closed them, or it is a standby: the address led there for a while during a failover.

Django's own check (``CONN_HEALTH_CHECKS``) sends a query each time a connection is taken from the
pool, about six times a turn. This asks the kernel instead: an idle connection has data to read
only if the server closed it or sent a notice.
"""

import math
import select
import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool

from pooled_postgres.deadlines import BoundedConnection
from pooled_postgres.infinite_times import with_infinite_times

# Called with the seconds of each wait for a connection of the pool, those without success too.
wait_listeners: set[Callable[[float], object]] = set()
DRAIN_EVERY_S = 1.0
_drained_at: dict[str, float] = {}  # alias → time.monotonic()


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's wrapper; never returns a pooled connection that the server has closed.

    Connections to a standby are all replaced, once in DRAIN_EVERY_S: they may lead there still.
    """

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        return params | {"context": with_infinite_times(params["context"])}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """A new connection, or a live one from the pool. Raises PoolTimeout, psycopg.Error."""
        if not (self.pool and wait_listeners):
            return self._live_connection(conn_params)
        began = time.perf_counter()
        try:
            return self._live_connection(conn_params)
        finally:
            waited_s = time.perf_counter() - began
            for listener in wait_listeners:
                listener(waited_s)

    def _live_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        if self.pool and is_on_standby(connection) and self._may_drain():
            self.pool.drain()
            connection = self._replaced(connection)
        while self.pool and has_ended(connection):
            connection = self._replaced(connection)
        return connection

    def _replaced(self, connection: Any) -> Any:
        self.pool.putconn(connection)  # the pool opens another in its place
        return self.pool.getconn()

    def _may_drain(self) -> bool:
        now = time.monotonic()
        is_due = now - _drained_at.get(self.alias, -math.inf) > DRAIN_EVERY_S
        if is_due:
            _drained_at[self.alias] = now
        return is_due


def is_on_standby(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server of a writer's connection said that it is a standby. No query.

    Bounded connections lead to a replica, or to a pooler, which does not say so.
    """
    is_writer = not isinstance(connection, BoundedConnection)
    return is_writer and connection.pgconn.parameter_status(b"in_hot_standby") == b"on"


def has_ended(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server closed this idle connection; then it is closed here too.

    Sends a query only if there is something to read.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if not poll.poll(0):
        return False
    try:
        ConnectionPool.check_connection(connection)  # it may be a notice
    except psycopg.Error:
        connection.close()
        return True
    return False
