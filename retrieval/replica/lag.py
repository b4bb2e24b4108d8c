"""How far the replica is: what is asked of the primary and of it. Locks: nothing."""

import time
from typing import Any, NamedTuple

from django.db import Error

from retrieval import queries

ALIAS = "replica"  # of its connection
TRY_S = 2.0  # for the answers of one try
CATCH_UP_POLL_S = 0.05
# Why it is left alone.
SILENT = "it cannot be reached or does not answer"
NO_STANDBY = "it is no standby"
OTHER = "it is not a replica of this database"
BEHIND = "it is more than REPLICA_MAX_LAG behind"
# As far as a replica can be: the write-ahead log is sent when it is on the primary's disk.
POSITION = "SELECT pg_catalog.pg_current_wal_flush_lsn()::text"
IDENTITY = """
    SELECT system_identifier::text, (
        SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    ) FROM pg_catalog.pg_control_system()
"""
# Of the replica: whether it is one, whether it has replayed a position, and whether a transaction.
# Not pg_visible_in_snapshot: on a standby a snapshot lists no transactions that run, so those look
# visible before their commit is replayed. pg_xact_status refuses an xid that is still to come.
PROGRESS = """
    SELECT pg_catalog.pg_is_in_recovery(),
        coalesce(pg_catalog.pg_last_wal_replay_lsn() >= %(position)s::pg_lsn, false),
        CASE WHEN %(xid)s IS NULL OR %(xid)s::xid8 < pg_catalog.pg_snapshot_xmin(snapshot) THEN true
            WHEN %(xid)s::xid8 >= pg_catalog.pg_snapshot_xmax(snapshot) THEN false
            ELSE coalesce(pg_catalog.pg_xact_status(%(xid)s::xid8) = 'committed', false) END
    FROM pg_catalog.pg_current_snapshot() snapshot
"""


class Position(NamedTuple):
    """Where the primary's log was at a time of time.monotonic(), or later."""

    at: float
    lsn: str


def current_position() -> Position:
    """Of the primary. One statement."""
    at = time.monotonic()
    return Position(at, str(queries.value(POSITION)))


def why_unusable(
    replica: Any, position: Position, identity: tuple[Any, ...], max_lag_s: float
) -> str | None:
    """Why the replica cannot be read from; None: it can. ``identity``: the primary's.

    Waits until it has replayed the position, while that is young enough. Never fails.
    """
    try:
        replica.ensure_connection()
        replica.connection.deadline = time.monotonic() + max_lag_s + TRY_S
        if queries.row(IDENTITY, connection=replica) != identity:
            return OTHER
        return _catch_up(replica, position, max_lag_s)
    except Error:
        return SILENT
    finally:
        replica.close()


def _catch_up(replica: Any, position: Position, max_lag_s: float) -> str | None:
    params = {"position": position.lsn, "xid": None}
    while True:
        is_standby, has_position, _ = queries.row(PROGRESS, params, connection=replica)
        if not is_standby:
            return NO_STANDBY
        if has_position:
            return None
        if time.monotonic() - position.at > max_lag_s:
            return BEHIND
        time.sleep(CATCH_UP_POLL_S)
