"""How far an index build is, seen from a second connection: a bar on a terminal, a line now and then elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import Error, connection
from tqdm import tqdm

LOOK_S = 0.5
LINE_S = 5.0  # between two lines of one phase
# https://www.postgresql.org/docs/current/progress-reporting.html#CREATE-INDEX-PROGRESS-REPORTING; tuples_done is
# pgvector's count of rows that are in the graph.
PROGRESS = """
    SELECT phase, tuples_done, nullif(current_locker_pid, 0)
    FROM pg_catalog.pg_stat_progress_create_index WHERE relid = pg_catalog.to_regclass(%s)
"""
LOADING = "building index: loading tuples"


@dataclass(frozen=True)
class Seen:
    """A look at a build: its phase, how many of the rows are in the index, which process it waits for."""

    phase: str
    done: int
    waits_for: int | None


class Told:
    """Tells of one build after the other, by ``say`` or by a bar."""

    def __init__(self, say: Callable[[str], Any], *, as_bar: bool) -> None:
        self.say = say
        self._as_bar = as_bar

    @contextmanager
    def building(self, name: str, table: str, rows: int) -> Iterator[None]:
        """Tell of the build on the table while it runs. Opens a connection of its own; its loss ends only this."""
        end = threading.Event()
        thread = threading.Thread(target=self._follow, args=(name, table, rows, end), daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _follow(self, name: str, table: str, rows: int, end: threading.Event) -> None:
        show = Bar(name, rows) if self._as_bar else Lines(name, rows, self.say)
        try:
            while not end.wait(LOOK_S):
                seen = look(table)
                if seen is not None:
                    show.update(seen)
        except Error:
            self.say(f"{name}: its progress cannot be seen; the build goes on")
        finally:
            show.close()
            connection.close()


class Bar:
    """On a terminal."""

    def __init__(self, name: str, rows: int) -> None:
        self._bar = tqdm(total=rows, desc=name, unit=" rows")

    def update(self, seen: Seen) -> None:
        """Move it."""
        self._bar.set_postfix_str(told_phase(seen), refresh=False)
        self._bar.update(seen.done - self._bar.n if seen.phase == LOADING else 0)
        self._bar.refresh()

    def close(self) -> None:
        """Leave it as it is."""
        self._bar.close()


class Lines:
    """A line for each phase that lasts, and every LINE_S seconds while the index is filled."""

    def __init__(self, name: str, rows: int, say: Callable[[str], Any]) -> None:
        self._name = name
        self._rows = rows
        self._say = say
        self._phase: str | None = None
        self._at = 0.0

    def update(self, seen: Seen) -> None:
        """Say it where it is new."""
        if seen.phase == self._phase and time.monotonic() - self._at < LINE_S:
            return
        self._phase, self._at = seen.phase, time.monotonic()
        self._say(f"{self._name}: {told_phase(seen)}{self._filled(seen)}")

    def close(self) -> None:
        """Nothing to close."""

    def _filled(self, seen: Seen) -> str:
        if seen.phase != LOADING or not self._rows:
            return ""
        return (
            f", {seen.done:,}/{self._rows:,} rows ({min(100 * seen.done / self._rows, 100):.1f}%)"
        )


def look(table: str) -> Seen | None:
    """The build that runs on the table, by whomever; None where there is none. One query."""
    with connection.cursor() as cursor:
        cursor.execute(PROGRESS, [table])
        row = cursor.fetchone()
    return Seen(row[0], row[1] or 0, row[2]) if row else None


def told_phase(seen: Seen) -> str:
    """In PostgreSQL's words."""
    return f"{seen.phase}, for process {seen.waits_for}" if seen.waits_for else seen.phase
