"""Connections from the pool: those that the server ended are replaced, and the others are not asked."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

SIZE = 3


@pytest.fixture
def pooled(transactional_db: None) -> Iterator[list[BaseDatabaseWrapper]]:
    """As many connections of one pool to the test's database as it has; none taken."""
    made = [connection.copy(alias="pooled") for _ in range(SIZE)]
    for one in made:
        one.settings_dict["OPTIONS"]["pool"] = {"min_size": 0, "max_size": SIZE, "timeout": 5}
    yield made
    for one in made:
        one.close()
    made[0].close_pool()  # type: ignore[attr-defined] # PostgreSQL's


def ask(one: BaseDatabaseWrapper, sql: str = "SELECT pg_backend_pid()") -> Any:
    """The one value that the statement gives; the connection stays taken."""
    with one.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def take_and_give_back(pooled: list[BaseDatabaseWrapper]) -> list[int]:
    """The process of each connection, all taken at once and given back."""
    processes = [ask(one) for one in pooled]
    for one in pooled:
        one.close()
    return processes


def test_connections_that_the_server_has_ended_are_replaced(
    pooled: list[BaseDatabaseWrapper],
) -> None:
    before = take_and_give_back(pooled)
    assert len(set(before)) == SIZE
    ask(connection, f"SELECT count(pg_terminate_backend(pid, 5000)) FROM unnest(ARRAY{before}) pid")
    assert set(take_and_give_back(pooled)).isdisjoint(before)


def test_a_connection_at_rest_is_handed_out_without_a_query(
    pooled: list[BaseDatabaseWrapper],
) -> None:
    (process,) = take_and_give_back(pooled[:1])
    pooled[0].ensure_connection()
    assert (
        ask(connection, f"SELECT query FROM pg_stat_activity WHERE pid = {process}")
        == "SELECT pg_backend_pid()"
    )
    assert ask(pooled[0]) == process


def test_one_that_was_told_something_meanwhile_is_no_dead_one(
    pooled: list[BaseDatabaseWrapper],
) -> None:
    ask(pooled[0], "LISTEN told")
    (process,) = take_and_give_back(pooled[:1])
    ask(connection, "NOTIFY told")
    assert take_and_give_back(pooled[:1]) == [process]
