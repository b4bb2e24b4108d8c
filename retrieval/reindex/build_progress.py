"""How far an index build is, read on a second connection while it runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import Error, connection

from retrieval.queries import rows

POLL_S = 0.5
# https://www.postgresql.org/docs/current/progress-reporting.html#CREATE-INDEX-PROGRESS-REPORTING
# tuples_done is pgvector's count of rows in the graph. Of a role of which this one is no member,
# only the process is shown: the lock that it holds says which table it is. Locks: none.
READ_PROGRESS = """
    SELECT coalesce(p.phase, 'as another role'), coalesce(p.tuples_done, 0),
        nullif(p.current_locker_pid, 0)
    FROM pg_catalog.pg_stat_progress_create_index p
    WHERE p.datname = pg_catalog.current_database() AND EXISTS (
        SELECT FROM pg_catalog.pg_locks l
        WHERE l.pid = p.pid AND l.database = p.datid AND l.granted
            AND l.relation = pg_catalog.to_regclass(%s)
            AND l.mode IN ('ShareLock', 'ShareUpdateExclusiveLock'))
"""
LOADING = "building index: loading tuples"


@dataclass(frozen=True)
class Build:
    """A running build: its phase, the rows in the index, the process whose lock it waits for."""

    phase: str
    rows: int
    locker_pid: int | None

    def __str__(self) -> str:
        return f"{self.phase}, for process {self.locker_pid}" if self.locker_pid else self.phase


def read_build(table: str) -> Build | None:
    """The build that runs on the table, started by anyone; None if there is none. One query."""
    for build in rows(READ_PROGRESS, [table]):
        return Build(*build)
    return None


@contextmanager
def follow_build(
    table: str, show: Callable[[Build], object], *, on_error: Callable[[], object]
) -> Iterator[None]:
    """Call ``show`` every POLL_S while a build runs on the table; ``on_error`` if that fails.

    In a thread with a connection of its own; if that is lost, only the display ends.
    """
    ended = threading.Event()

    def follow() -> None:
        try:
            while not ended.wait(POLL_S):
                if build := read_build(table):
                    show(build)
        except Error:
            on_error()
        finally:
            connection.close()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
