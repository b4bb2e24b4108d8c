"""Runs statements that need neither models nor vectors."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from django.db import connection as default_connection
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

Query: TypeAlias = str | sql.Composable
Params: TypeAlias = Sequence[Any] | Mapping[str, Any] | None


def execute(
    query: Query, params: Params = None, *, connection: BaseDatabaseWrapper = default_connection
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(query, params)


def rows(
    query: Query, params: Params = None, *, connection: BaseDatabaseWrapper = default_connection
) -> list[tuple[Any, ...]]:
    """All rows of the result."""
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        return list(cursor.fetchall())


def row(
    query: Query, params: Params = None, *, connection: BaseDatabaseWrapper = default_connection
) -> tuple[Any, ...]:
    """The only row of the result."""
    (only,) = rows(query, params, connection=connection)
    return only


def value(
    query: Query, params: Params = None, *, connection: BaseDatabaseWrapper = default_connection
) -> Any:
    """The only column of the only row of the result."""
    (only,) = row(query, params, connection=connection)
    return only
