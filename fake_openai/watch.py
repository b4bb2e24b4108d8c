"""Checks PostgreSQL while the product waits for an answer: no transaction may stay open."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

# A session between two statements is idle in a transaction for a moment. A transaction around the
# call stays idle as long as the call waits for our answer; only that is a violation.
HELD_S = 0.1
IDLE_IN_TRANSACTION = """
    SELECT pid, state_change, state, left(query, 200) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND state LIKE 'idle in transaction%%' AND application_name LIKE %s
"""
COUNT_BUSY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND state <> 'idle' AND application_name LIKE %s
"""

Sessions = dict[tuple[object, object], str]  # (pid, state_change): a sentence about it


class DatabaseWatch:
    """Has one connection in its own thread, opened at the first check and after a loss.

    ``violations`` are sentences. A check that failed is a violation too.
    """

    def __init__(
        self, conninfo: str, *, only: str | None, max_busy: int | None, violations: list[str]
    ) -> None:
        self._conninfo = conninfo
        self._application = only or "%"
        self._max_busy = max_busy
        self._violations = violations
        self._thread = ThreadPoolExecutor(1, "fake-openai-watch")
        self._connection: psycopg.Connection | None = None

    async def check(self, path: str) -> None:
        """Check now: at most three queries and HELD_S. The request to ``path`` waits for it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._check, path)

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._thread.submit(self._disconnect).result()
        self._thread.shutdown()

    def _check(self, path: str) -> None:
        try:
            sentences = self._busy() + self._held()
        except psycopg.Error as error:
            self._disconnect()
            sentences = [f"could not check: {error}"]
        self._violations += [f"during {path}: {sentence}" for sentence in sentences]

    def _held(self) -> list[str]:
        before = self._idle_in_transaction()
        if not before:
            return []
        time.sleep(HELD_S)
        after = self._idle_in_transaction()
        return [sentence for session, sentence in after.items() if session in before]

    def _idle_in_transaction(self) -> Sessions:
        rows = self._connected().execute(IDLE_IN_TRANSACTION, [self._application]).fetchall()
        return {
            (pid, since): f"session {pid} is {state} after: {query}"
            for pid, since, state, query in rows
        }

    def _busy(self) -> list[str]:
        if self._max_busy is None:
            return []
        row = self._connected().execute(COUNT_BUSY, [self._application]).fetchone()
        count = row[0] if row else 0
        return [f"{count} sessions are not idle"] if count > self._max_busy else []

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._conninfo, autocommit=True, application_name="fake_openai", connect_timeout=5
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
