"""Runs a read on the replica while that has the user's latest write, else on the primary.

The primary says which transaction wrote last for the user (``user_writes``). The replica must have
replayed that transaction, and a position of the primary that is not older than REPLICA_MAX_LAG.
Whatever fails there, the read runs on the primary instead.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import Error, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from retrieval import queries
from retrieval.replica import user_writes
from retrieval.replica.lag import ALIAS, BEHIND, NO_STANDBY, PROGRESS, SILENT
from retrieval.replica.monitor import monitor
from retrieval.replica.user_writes import UnknownWriteError

T = TypeVar("T")
# With the wait for a connection, 1 s at most, below the 2 s of docs/promises.md.
READ_S = 1.5
_is_reading: ContextVar[bool] = ContextVar("_is_reading", default=False)


class PrimaryNeededError(Exception):
    """The replica lacks the user's latest write, or a read has turned out to be a write."""


def read(user_id: int, function: Callable[[], T]) -> T:
    """What ``function`` reads of the user's rows. It may be called twice, and writes nothing.

    Two short statements more, one of each server. Without a replica, or inside a transaction: none.
    """
    if ALIAS not in connections.databases or is_reading() or connection.in_atomic_block:
        return function()
    position = monitor().position()
    if position is None:
        return function()
    try:
        xid = user_writes.latest_write(user_id)
    except UnknownWriteError:
        return function()
    try:
        with _on_replica():
            _require(position, xid)
            return function()
    except (PrimaryNeededError, Error):
        return function()


def database() -> BaseDatabaseWrapper:
    """The connection for a statement that ``read`` may run: the replica's, else the primary's."""
    return connections[ALIAS if _is_reading.get() else connection.alias]


def is_reading() -> bool:
    """Whether statements run on the replica now."""
    return _is_reading.get()


def require_primary() -> None:
    """Raises PrimaryNeededError where a read on the replica has turned out to be a write."""
    if _is_reading.get():
        raise PrimaryNeededError


@contextmanager
def _on_replica() -> Iterator[None]:
    """Take a connection of the replica's; a lost or silent one makes it rest. Raises Error."""
    replica: Any = connections[ALIAS]
    deadline = time.monotonic() + READ_S
    token = _is_reading.set(True)
    try:
        replica.ensure_connection()
        replica.connection.deadline = deadline
        yield
    except Error:
        if replica.connection is None or replica.connection.closed:
            monitor().rest(SILENT)
        raise
    finally:
        _is_reading.reset(token)
        replica.close()


def _require(position: str, xid: str | None) -> None:
    """Raises PrimaryNeededError; the replica rests if it is too far behind for any user."""
    params = {"position": position, "xid": xid}
    is_standby, has_position, has_write = queries.row(PROGRESS, params, connection=database())
    if not is_standby:
        monitor().rest(NO_STANDBY)
    elif not has_position:
        monitor().rest(BEHIND)
    if not (is_standby and has_position and has_write):
        raise PrimaryNeededError
