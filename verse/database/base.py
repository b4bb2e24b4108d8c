"""Django's PostgreSQL backend, which hands out no pooled connection that died with its server.

Django's own check (``CONN_HEALTH_CHECKS``) asks the server, a round trip each time that a connection is taken: half a
dozen a turn. The kernel knows for nothing: a connection at rest has nothing to read unless the server ended it.
"""

import select
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool


class DatabaseWrapper(base.DatabaseWrapper):
    """Replaces the connections that have ended, for as long as the pool's own time limit allows."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """A new connection, or one of the pool that lives. Errors: PoolTimeout, and those of a new connection."""
        connection = super().get_new_connection(conn_params)
        while self.pool and has_ended(connection):
            self.pool.putconn(connection)  # which makes another in its place
            connection = self.pool.getconn()
        return connection


def has_ended(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server has ended a connection at rest, which then is closed. A query only where there is news."""
    news = select.poll()
    news.register(connection.fileno(), select.POLLIN)
    if not news.poll(0):
        return False
    try:
        ConnectionPool.check_connection(
            connection
        )  # it may be a notice, such as of a changed setting
    except psycopg.Error:
        connection.close()
        return True
    return False
