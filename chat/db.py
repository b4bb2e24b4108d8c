"""Database connections are taken from a pool for a step and returned before any wait."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.db import connection

P = ParamSpec("P")
T = TypeVar("T")


def with_connection(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function``, then return this thread's connection to the pool.

    For background threads: if they kept theirs, 12 answers would starve a pool of 4.
    """
    try:
        return function(*args, **kwargs)
    finally:
        connection.close()


def release_connection() -> None:
    """Return the connection to the pool before a wait. Inside a transaction it is kept."""
    if not connection.in_atomic_block:
        connection.close()
