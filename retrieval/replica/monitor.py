"""Whether the replica may be asked: a thread of each process that reads from it.

It reads the primary's position four times in REPLICA_MAX_LAG. While the replica rests (it was away,
silent, or too far behind), it is tried every 10 s by this thread, and by no request.
"""

import logging
import threading
import time
from collections import deque
from functools import cache

from django.conf import settings
from django.db import Error, connection, connections
from psycopg_pool import ConnectionPool

from retrieval import queries, runtime
from retrieval.db_errors import error_name
from retrieval.replica.lag import (
    ALIAS,
    BEHIND,
    IDENTITY,
    SILENT,
    Position,
    current_position,
    why_unusable,
)

logger = logging.getLogger(__name__)
TRY_AGAIN_S = 10.0


class Positions:
    """The primary's positions of the last seconds."""

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._positions: deque[Position] = deque()

    def add(self, position: Position) -> None:
        self._positions.append(position)
        while position.at - self._positions[0].at > self._max_age_s:
            self._positions.popleft()

    def oldest(self, now: float) -> str | None:
        """The oldest that is not too old; None if all are."""
        for position in tuple(self._positions):
            if now - position.at <= self._max_age_s:
                return position.lsn
        return None


class Monitor:
    """It begins at rest: the first requests go to the primary."""

    def __init__(self, max_lag_s: float) -> None:
        self._max_lag_s = max_lag_s
        self._positions = Positions(max_lag_s)
        self._lock = threading.Lock()  # protects the following
        self._rests, self._is_logged = True, False
        self._next_try = 0.0  # time.monotonic()

    def start(self) -> None:
        threading.Thread(target=self._run, name="replica", daemon=True).start()

    def position(self) -> str | None:
        """What the replica must have replayed; None: it must not be asked. No query."""
        return None if self._rests else self._positions.oldest(time.monotonic())

    def rest(self, reason: str) -> None:
        """Leave the replica alone until a try succeeds; one line in the log for each outage."""
        with self._lock:
            self._rests, self._next_try = True, time.monotonic() + TRY_AGAIN_S
            is_logged, self._is_logged = self._is_logged, True
        if not is_logged:
            logger.warning(
                "The read replica is left alone, tried every %g s: %s", TRY_AGAIN_S, reason
            )
        if reason not in (SILENT, BEHIND):
            end_connections()

    def _end_rest(self) -> None:
        with self._lock:
            self._rests, is_logged, self._is_logged = False, self._is_logged, False
        if is_logged:
            logger.info("The read replica is read from again")

    def _run(self) -> None:
        while True:
            try:
                self._tick()
            except Error as error:
                # The primary is away: the positions grow too old, and requests get 503 anyway.
                logger.debug("The primary's position is unknown: %s", error_name(error))
            except Exception:
                logger.exception("The read replica could not be watched")
            time.sleep(self._max_lag_s / 4)

    def _tick(self) -> None:
        """One statement of the primary; two more, and some of the replica, when a try is due."""
        try:
            position = current_position()
            self._positions.add(position)
            if self._rests and position.at >= self._next_try:
                identity = queries.row(IDENTITY)
                connection.close()  # not held while the replica is waited for
                reason = why_unusable(connections[ALIAS], position, identity, self._max_lag_s)
                self._end_rest() if reason is None else self.rest(reason)
        finally:
            connection.close()


def end_connections() -> None:
    """Close the pool's connections, those in use when they come back.

    They lead to a server that is no replica; the next may lead to another server, by DNS or because
    libpq tries several addresses.
    """
    pool: ConnectionPool | None = getattr(connections[ALIAS], "pool", None)
    if pool:
        pool.drain()


@cache
def monitor() -> Monitor:
    """The process's, started by its first read."""
    started = Monitor(settings.REPLICA_MAX_LAG_S)
    started.start()
    return started


runtime.on_reset(monitor.cache_clear)
