"""The replica that recall and lists are read from."""

from typing import Any

from django.conf import settings
from django.db import connections
from django.db.utils import ConnectionHandler

from retrieval.doctor.report import Check, Finding, passed, warning
from retrieval.queries import row
from retrieval.replica.lag import ALIAS, BEHIND, IDENTITY, current_position, why_unusable

SENDERS = "SELECT application_name, state, replay_lag FROM pg_catalog.pg_stat_replication;"
UNSET = "DATABASE_REPLICA_URL="


def replica_follows() -> Finding:
    """The server of DATABASE_REPLICA_URL: a replica of this database, and its lag."""
    if settings.REPLICA_DATABASE is None:
        return passed("DATABASE_REPLICA_URL is not set: everything is read from the primary")
    identity, position = row(IDENTITY), current_position()
    replica: Any = ConnectionHandler({"default": {}, ALIAS: settings.REPLICA_DATABASE})[ALIAS]
    try:
        reason = why_unusable(replica, position, identity, settings.REPLICA_MAX_LAG_S)
    finally:
        if ALIAS not in connections.databases:  # a command; a server goes on using its pool
            replica.close_pool()
    if reason is None:
        return passed(f"the replica is less than {settings.REPLICA_MAX_LAG_S:g} s behind")
    detail = f"the replica is left alone, and everything read from the primary: {reason}"
    return warning(detail, SENDERS if reason == BEHIND else UNSET)


def checks() -> list[Check]:
    return [Check("server.replica", replica_follows)]
