"""Pooled connections: those that the server has closed are replaced; no query checks the others."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

POOL_SIZE = 3


@pytest.fixture
def pooled(transactional_db: None) -> Iterator[list[BaseDatabaseWrapper]]:
    """Three idle connections, one for each place of a pool on the test's database."""
    wrappers = [connection.copy(alias="pooled") for _ in range(POOL_SIZE)]
    for wrapper in wrappers:
        wrapper.settings_dict["OPTIONS"]["pool"] = {
            "min_size": 0,
            "max_size": POOL_SIZE,
            "timeout": 5,
        }
    yield wrappers
    for wrapper in wrappers:
        wrapper.close()
    wrappers[0].close_pool()  # type: ignore[attr-defined] # PostgreSQL's


def query(wrapper: BaseDatabaseWrapper, sql: str = "SELECT pg_backend_pid()") -> Any:
    """The first value of the result; the connection stays taken from the pool."""
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def take_and_give_back(wrappers: list[BaseDatabaseWrapper]) -> list[int]:
    """The server process of each connection, all taken at once and given back."""
    processes = [query(wrapper) for wrapper in wrappers]
    for wrapper in wrappers:
        wrapper.close()
    return processes


def test_connections_closed_by_the_server_are_replaced(pooled: list[BaseDatabaseWrapper]) -> None:
    before = take_and_give_back(pooled)
    assert len(set(before)) == POOL_SIZE
    terminate = f"SELECT count(pg_terminate_backend(pid, 5000)) FROM unnest(ARRAY{before}) pid"
    query(connection, terminate)
    assert set(take_and_give_back(pooled)).isdisjoint(before)


def test_an_idle_connection_is_handed_out_without_a_query(
    pooled: list[BaseDatabaseWrapper],
) -> None:
    (process,) = take_and_give_back(pooled[:1])
    pooled[0].ensure_connection()
    last_query = query(connection, f"SELECT query FROM pg_stat_activity WHERE pid = {process}")
    assert last_query == "SELECT pg_backend_pid()"
    assert query(pooled[0]) == process


def test_a_connection_that_received_a_notification_is_kept(
    pooled: list[BaseDatabaseWrapper],
) -> None:
    query(pooled[0], "LISTEN news")
    (process,) = take_and_give_back(pooled[:1])
    query(connection, "NOTIFY news")
    assert take_and_give_back(pooled[:1]) == [process]
