"""Django's PostgreSQL backend that replaces pooled connections which the server has closed.

Django's own check (``CONN_HEALTH_CHECKS``) sends a query each time a connection is taken from the
pool, about six times a turn. This asks the kernel instead: an idle connection has data to read
only if the server closed it or sent a notice.
"""

import select
import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool

from pooled_postgres.infinite_times import with_infinite_times

# Called with the seconds of each wait for a connection of the pool, those without success too.
wait_listeners: set[Callable[[float], object]] = set()


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's wrapper; never returns a pooled connection that the server has closed."""

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
        while self.pool and has_ended(connection):
            self.pool.putconn(connection)  # the pool opens another in its place
            connection = self.pool.getconn()
        return connection


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
