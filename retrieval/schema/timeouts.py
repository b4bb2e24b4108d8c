"""Timeouts of the role or the database, which would end an index build or a long count half-way."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from retrieval.queries import execute, rows

TIMEOUTS = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",  # PostgreSQL 17
]
READ_SETTINGS = """
    SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings
    WHERE name = ANY (%s)
"""
# Of the settings that this server has. Until the end of the transaction. Locks: none.
LIFT_IN_TRANSACTION = """
    SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings
    WHERE name IN ('statement_timeout', 'transaction_timeout')
"""
WRITE_SETTING = "SELECT pg_catalog.set_config(%s, %s, false)"


@contextmanager
def without_timeouts(connection: BaseDatabaseWrapper, *, lock_timeout: str = "0") -> Iterator[None]:
    """Set the session's timeouts to 0 (never), and back to what they were at the end.

    ``lock_timeout`` is the longest wait for one lock, such as ``5s``. Use it outside transactions.
    """
    before: dict[str, str] = dict(rows(READ_SETTINGS, [TIMEOUTS], connection=connection))
    _write(connection, dict.fromkeys(before, "0") | {"lock_timeout": lock_timeout})
    try:
        yield
    finally:
        with suppress(Error):  # the session may be lost, and with it its settings
            _write(connection, before)


@contextmanager
def transaction_without_timeouts(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """A transaction that may take long. Behind a pooler it changes no other's session."""
    with transaction.atomic(using=connection.alias):
        execute(LIFT_IN_TRANSACTION, connection=connection)
        yield


def _write(connection: BaseDatabaseWrapper, values: dict[str, str]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(WRITE_SETTING, list(values.items()))
