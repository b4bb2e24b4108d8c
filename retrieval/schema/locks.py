"""DDL with a 300 ms lock_timeout and retries, so that it never queues other statements behind it.

And advisory locks: one ``migrate`` at a time, one backfill at a time.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from retrieval.db_errors import sqlstate
from retrieval.queries import execute, rows, value

LOCK_TIMEOUT_MS = 300  # a write behind a waiting ALTER took 249 ms with this, 1,951 ms with 2 s
PAUSE_S = 1.0  # between attempts: statements that queued behind the last one go first
MAX_ATTEMPTS = 600  # about ten minutes of a table that is never free
MIGRATE_LOCK = 0x7665727365  # "verse": held while migrating or building indexes
BACKFILL_LOCK = 0x76657273F1  # held while backfilling
IMPORT_LOCK = 0x7665727366  # held by the transaction of an import
PROPAGATE_LOCK = 0x76657273  # with a user's number: retrieval/forgetting.sql
POLL_S = 0.5
LEFTOVER_S = 2.0  # a killed process holds its lock until its last statement is over
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"
SET_LOCK_TIMEOUT = "SELECT pg_catalog.set_config('lock_timeout', %s, true)"
LOCK_HOLDERS = """
    SELECT DISTINCT b.pid, coalesce(b.application_name, ''), b.state,
        round(extract(epoch FROM clock_timestamp() - b.xact_start)::numeric, 1)
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity b USING (pid)
    WHERE l.relation IN (SELECT pg_catalog.to_regclass(name) FROM unnest(%s::text[]) AS name)
        AND l.granted AND b.pid <> pg_catalog.pg_backend_pid()
"""


def run_with_short_lock(
    connection: BaseDatabaseWrapper,
    table: str,
    statements: str | sql.Composable,
    params: Mapping[str, Any] | None = None,
    *,
    parents: Sequence[str] = (),
) -> None:
    """Run statements that lock ``table`` in one transaction; retry while others hold the lock.

    Each attempt waits at most LOCK_TIMEOUT_MS, so no other statement waits behind it for longer.
    ``parents``: tables that a foreign key locks too, to say who holds them.
    OperationalError: the table was not free in MAX_ATTEMPTS attempts.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute(SET_LOCK_TIMEOUT, [f"{LOCK_TIMEOUT_MS}ms"])
                cursor.execute(statements, params)
            return
        except OperationalError as error:
            if attempt == MAX_ATTEMPTS or not _is_lock_conflict(error):
                raise
        holders = _describe_lock_holders(connection, [table, *parents])
        notify_operator(f"{table} is in use, trying again in {PAUSE_S:g} s{holders}")
        time.sleep(PAUSE_S)


@contextmanager
def wait_for_advisory_lock(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Hold MIGRATE_LOCK: a second ``migrate`` on the database waits for the first.

    It polls. A session that waits inside pg_advisory_lock() has an open transaction, for which
    CREATE INDEX CONCURRENTLY would wait: a deadlock.
    """
    if not _try_lock(connection, MIGRATE_LOCK):
        notify_operator("another migrate is running, or a rag_index: waiting for it")
        while not _try_lock(connection, MIGRATE_LOCK):
            time.sleep(POLL_S)
    try:
        yield
    finally:
        _unlock(connection, MIGRATE_LOCK)


@contextmanager
def try_advisory_lock(
    connection: BaseDatabaseWrapper, lock: int, *, patience_s: float = LEFTOVER_S
) -> Iterator[bool]:
    """Whether this session got the advisory lock within ``patience_s``; released at the end."""
    give_up_at = time.monotonic() + patience_s
    while not (is_locked := _try_lock(connection, lock)) and time.monotonic() < give_up_at:
        time.sleep(POLL_S)
    try:
        yield is_locked
    finally:
        if is_locked:
            _unlock(connection, lock)


def notify_operator(line: str) -> None:
    """Print a line for the operator to stderr."""
    sys.stderr.write(f"  {line}\n")


def _is_lock_conflict(error: OperationalError) -> bool:
    return sqlstate(error) in (LOCK_NOT_AVAILABLE, DEADLOCK)


def _describe_lock_holders(connection: BaseDatabaseWrapper, tables: list[str]) -> str:
    holders = [
        f"{name or 'process'} {pid} ({state}, {seconds} s)"
        for pid, name, state, seconds in rows(LOCK_HOLDERS, [tables], connection=connection)
    ]
    return f"; held by {', '.join(holders)}" if holders else ""


def _try_lock(connection: BaseDatabaseWrapper, lock: int) -> bool:
    return bool(value("SELECT pg_catalog.pg_try_advisory_lock(%s)", [lock], connection=connection))


def _unlock(connection: BaseDatabaseWrapper, lock: int) -> None:
    if connection.connection is not None and not connection.connection.closed:
        execute("SELECT pg_catalog.pg_advisory_unlock(%s)", [lock], connection=connection)
