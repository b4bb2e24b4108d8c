"""Say whom a command waits for, every 10 s, while a statement of its waits for a lock.

CREATE, DROP and REINDEX INDEX CONCURRENTLY wait without limit for transactions that are older.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from retrieval.db_errors import error_name
from retrieval.queries import rows, value

PATIENCE_S = 3.0  # shorter waits are usual under traffic
REPEAT_S = 10.0
POLL_S = 1.0
JOIN_S = 2.0  # the thread may be inside a query
# pid 0: a prepared transaction. State and times are null if this role may not read them.
# The query text of others is never read: it may hold what a user wrote. Locks: none.
BLOCKERS = """
    SELECT b.pid, coalesce(nullif(a.application_name, ''),
            nullif(a.backend_type, 'client backend'), 'process'),
        a.usename, a.state, to_char(a.xact_start, 'HH24:MI:SS TZ'),
        round(extract(epoch FROM clock_timestamp() - a.xact_start))::int,
        round(extract(epoch FROM clock_timestamp() - l.waitstart))::int
    FROM pg_catalog.pg_locks l
    CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(l.pid)) b (pid)
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
    WHERE l.pid = %s AND NOT l.granted
        AND l.waitstart <= clock_timestamp() - make_interval(secs => %s)
    ORDER BY a.xact_start, b.pid
"""


@dataclass(frozen=True)
class Blocker:
    """A session that another one waits for; ``since`` and ``age_s`` are of its transaction."""

    pid: int
    name: str  # its application_name if it has one
    role: str | None
    state: str | None
    since: str | None
    age_s: int | None
    waited_s: int

    def __str__(self) -> str:
        if self.pid == 0:
            return "a prepared transaction, see pg_prepared_xacts"
        if self.since is None:
            return f"{self.name} {self.pid} of {self.role} (this role may not see its state)"
        return f"{self.name} {self.pid} ({self.state}, since {self.since}, {self.age_s} s)"


def read_blockers(connection: BaseDatabaseWrapper, pid: int, *, min_wait_s: float) -> list[Blocker]:
    """Whom the session ``pid`` has waited for, for ``min_wait_s`` or longer. One query."""
    blockers = rows(BLOCKERS, [pid, min_wait_s], connection=connection)
    return [Blocker(*blocker) for blocker in blockers]


@contextmanager
def report_waits(
    connection: BaseDatabaseWrapper, write_line: Callable[[str], object]
) -> Iterator[None]:
    """Call ``write_line`` after PATIENCE_S of waiting and every REPEAT_S, in a thread.

    The thread has a connection of its own, which it opens after PATIENCE_S.
    """
    pid = value("SELECT pg_catalog.pg_backend_pid()", connection=connection)
    ended = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(connection, pid, ended, write_line), daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(JOIN_S)


def _watch(
    waiting: BaseDatabaseWrapper,
    pid: int,
    ended: threading.Event,
    write_line: Callable[[str], object],
) -> None:
    pause_s = PATIENCE_S
    connection = waiting.copy()
    try:
        while not ended.wait(pause_s):
            blockers = read_blockers(connection, pid, min_wait_s=PATIENCE_S)
            if blockers:
                write_line(_describe(blockers))
            pause_s = REPEAT_S if blockers else POLL_S
    except Error as error:
        write_line(f"cannot see whom this command waits for ({error_name(error)}); it goes on")
    finally:
        connection.close()


def _describe(blockers: list[Blocker]) -> str:
    sessions = ", ".join(dict.fromkeys(map(str, blockers)))
    return f"waiting {blockers[0].waited_s} s for the transaction of {sessions}"
