"""Looks into PostgreSQL while the product waits for an answer: nobody may sit in a transaction meanwhile."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

# Another test's session, or one between two statements, may be idle in a transaction for a moment. The call
# waits for our answer, so a transaction held around it stays in the same state; only that is a violation.
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

Sessions = dict[tuple[object, object], str]  # (pid, state_change): what to say about it


class DatabaseWatch:
    """One connection, in a thread of its own; opened at the first look and again after it was lost.

    ``violations`` are sentences. A look that failed is one too: a check that did not happen proves nothing.
    """

    def __init__(
        self, conninfo: str, *, only: str | None, most_busy: int | None, violations: list[str]
    ) -> None:
        self._conninfo = conninfo
        self._application = only or "%"
        self._most_busy = most_busy
        self._violations = violations
        self._thread = ThreadPoolExecutor(1, "fake-openai-watch")
        self._connection: psycopg.Connection | None = None

    async def look(self, path: str) -> None:
        """Look now, for at most HELD_S and two queries; the request to ``path`` waits for it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._look, path)

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._thread.submit(self._disconnect).result()
        self._thread.shutdown()

    def _look(self, path: str) -> None:
        try:
            said = self._busy() + self._held()
        except psycopg.Error as error:
            self._disconnect()
            said = [f"could not look: {error}"]
        self._violations += [f"during {path}: {sentence}" for sentence in said]

    def _held(self) -> list[str]:
        before = self._idle_in_transaction()
        if not before:
            return []
        time.sleep(HELD_S)
        return [said for session, said in self._idle_in_transaction().items() if session in before]

    def _idle_in_transaction(self) -> Sessions:
        rows = self._connected().execute(IDLE_IN_TRANSACTION, [self._application]).fetchall()
        return {
            (pid, since): f"session {pid} is {state} after: {query}"
            for pid, since, state, query in rows
        }

    def _busy(self) -> list[str]:
        if self._most_busy is None:
            return []
        row = self._connected().execute(COUNT_BUSY, [self._application]).fetchone()
        count = row[0] if row else 0
        return [f"{count} sessions are not idle"] if count > self._most_busy else []

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
