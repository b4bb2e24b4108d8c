"""Changes to live tables: short lock timeouts and patience, so that nobody waits behind a change that waits."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.sql import Composed

from retrieval.db_errors import sqlstate

LOCK_TIMEOUT_MS = 300  # a writer behind a waiting ALTER stood 249 ms at this; 1,951 ms at 2 s
PAUSE_S = 1.0  # between tries: those who queued behind the last one get through
TRIES = 600  # about ten minutes of a table that is never free
MIGRATE_LOCK = 0x7665727365  # "verse": the advisory lock of whoever migrates, or builds indexes
BACKFILL_LOCK = 0x76657273F1  # of whoever backfills
POLL_S = 0.5
LEFT_OVER_S = 2.0
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"
BLOCKERS = """
    SELECT DISTINCT b.pid, coalesce(b.application_name, ''), b.state,
        round(extract(epoch FROM clock_timestamp() - b.xact_start)::numeric, 1)
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity b USING (pid)
    WHERE l.relation = pg_catalog.to_regclass(%s) AND l.granted AND b.pid <> pg_catalog.pg_backend_pid()
"""


def run_with_short_lock(
    connection: BaseDatabaseWrapper,
    table: str,
    statements: str | Composed,
    params: dict[str, Any] | None = None,
) -> None:
    """Run the statements, which lock ``table``, in one transaction; again after a pause while somebody else holds it.

    Each try waits LOCK_TIMEOUT_MS for the lock, so no other statement is held up for longer. OperationalError: the
    table was not free in TRIES tries.
    """
    for attempt in range(1, TRIES + 1):
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                cursor.execute(statements, params)
            return
        except OperationalError as error:
            if sqlstate(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK) or attempt == TRIES:
                raise
        tell(f"{table} is in use, trying again in {PAUSE_S:g} s{_who(connection, table)}")
        time.sleep(PAUSE_S)


@contextmanager
def wait_for_advisory_lock(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Only one ``migrate`` on the database; others wait their turn.

    They ask again and again: a session that waits inside pg_advisory_lock() would be in a transaction that CREATE
    INDEX CONCURRENTLY waits for, a deadlock.
    """
    told = False
    while not _ask(connection, f"SELECT pg_catalog.pg_try_advisory_lock({MIGRATE_LOCK})"):
        if not told:
            tell("another migrate is running, or a rag_index: waiting for it")
        told = True
        time.sleep(POLL_S)
    try:
        yield
    finally:
        _unlock(connection, MIGRATE_LOCK)


@contextmanager
def try_advisory_lock(
    connection: BaseDatabaseWrapper, lock: int, *, patience_s: float = LEFT_OVER_S
) -> Iterator[bool]:
    """Whether nobody else holds the advisory lock, asked again for so long; held until the end, or this session's.

    A process that was killed holds it until its last statement is over.
    """
    until = time.monotonic() + patience_s
    while not (mine := bool(_ask(connection, f"SELECT pg_catalog.pg_try_advisory_lock({lock})"))):
        if time.monotonic() >= until:
            break
        time.sleep(POLL_S)
    try:
        yield mine
    finally:
        if mine:
            _unlock(connection, lock)


def _unlock(connection: BaseDatabaseWrapper, lock: int) -> None:
    if connection.connection is not None and not connection.connection.closed:
        _ask(connection, f"SELECT pg_catalog.pg_advisory_unlock({lock})")


def tell(line: str) -> None:
    """A line for the operator, beside what the command prints."""
    sys.stderr.write(f"  {line}\n")


def _who(connection: BaseDatabaseWrapper, table: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(BLOCKERS, [table])
        holders = [
            f"{name or 'process'} {pid} ({state}, {seconds} s)"
            for pid, name, state, seconds in cursor.fetchall()
        ]
    return f"; held by {', '.join(holders)}" if holders else ""


def _ask(connection: BaseDatabaseWrapper, sql: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    return row[0] if row else None
