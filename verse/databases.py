"""Django's databases of the URLs in the settings."""

from typing import Any

from pooled_postgres.deadlines import DeadlineConnection, PoolerConnection

Parts = dict[str, Any]  # of a URL, as Environment.database returns them
# Idle connections are closed after a minute. A lost server is tried every second for 2 s, then by
# the next request. With psycopg's default of 5 minutes the pauses between its attempts double, so
# that it would notice late that the server is back.
POOL = {"min_size": 0, "max_idle": 60, "reconnect_timeout": 2}


def direct(parts: Parts) -> Parts:
    """For commands and tests."""
    # Not "verse": rag_doctor takes a session of that name for a server too old to tell its version.
    return with_options(parts, {"application_name": "verse-command", "connect_timeout": 5})


def pooled(parts: Parts, *, version: str, size: int, is_behind_pooler: bool) -> Parts:
    """For a server: requests take connections from a pool of its process.

    A request waits up to 5 s for one, then it gets 503: docs/decisions/0003-database.md
    """
    # rag_doctor compares the versions of running servers by this name.
    options: Parts = {"application_name": f"verse {version}", "connect_timeout": 5}
    options["pool"] = POOL | {"max_size": size, "timeout": 5}
    if is_behind_pooler:
        options["pool"]["connection_class"] = PoolerConnection
    # A pooler cannot keep cursors open.
    return with_options(parts, options) | {"DISABLE_SERVER_SIDE_CURSORS": is_behind_pooler}


def replica(parts: Parts, *, version: str, size: int) -> Parts:
    """For a server: a pool that gives up soon, because the primary can do the same."""
    options: Parts = {"application_name": f"verse {version}", "connect_timeout": 2}
    options["pool"] = POOL | {
        "max_size": size,
        "timeout": 1,
        "connection_class": DeadlineConnection,
    }
    return with_options(parts, options) | {"DISABLE_SERVER_SIDE_CURSORS": True}


def with_options(parts: Parts, options: Parts) -> Parts:
    """Those of the URL have priority."""
    return {**parts, "OPTIONS": options | parts.get("OPTIONS", {})}
