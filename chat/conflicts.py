"""Repeats, once, a transaction that PostgreSQL ended so that another one could go on."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection

from retrieval.db_errors import sqlstate

P = ParamSpec("P")
T = TypeVar("T")
# serialization_failure and deadlock_detected: PostgreSQL's documentation asks to try them again.
CONFLICTS = {"40001", "40P01"}


def repeat_after_conflict(work: Callable[P, T]) -> Callable[P, T]:
    """Decorator: call ``work`` again after its first deadlock or serialization failure.

    Not inside a transaction: all of that one has failed, so its own start must be repeated.
    """

    @wraps(work)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except OperationalError as error:
            if connection.in_atomic_block or sqlstate(error) not in CONFLICTS:
                raise
        return work(*args, **kwargs)

    return repeated
