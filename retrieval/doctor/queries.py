"""Read-only queries of the checks, with time limits. They lock nothing but ACCESS SHARE."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, TypeAlias

from django.db import connection, transaction
from psycopg import sql

from retrieval.models import EmbeddingModel
from retrieval.schema import extension

Query: TypeAlias = LiteralString | sql.Composable
Params: TypeAlias = Sequence[Any] | Mapping[str, Any]
STATEMENT_TIMEOUT = "30s"  # a longer check becomes a WARN: the live database comes first
LOCK_TIMEOUT = "1s"  # a reader waits only for ACCESS EXCLUSIVE, which is reported then
SET_LIMITS = """
    SELECT pg_catalog.set_config('statement_timeout', %s, true),
        pg_catalog.set_config('lock_timeout', %s, true)
"""


@contextmanager
def limited_transaction(*, read_only: bool = True) -> Iterator[None]:
    """A transaction with time limits for each statement and for each wait for a lock."""
    with transaction.atomic():
        rows(SET_LIMITS, [STATEMENT_TIMEOUT, LOCK_TIMEOUT])
        if read_only:
            execute("SET LOCAL transaction_read_only = on")
        yield


def execute(query: Query) -> None:
    with connection.cursor() as cursor:
        cursor.execute(query)


def rows(query: Query, params: Params = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, params or None)
        return list(cursor.fetchall())


def row(query: Query, params: Params = ()) -> tuple[Any, ...]:
    """The only row of the result."""
    (only,) = rows(query, params)
    return only


def value(query: Query, params: Params = ()) -> Any:
    """The only column of the only row of the result."""
    (only,) = row(query, params)
    return only


def setting(name: str) -> str | None:
    """A setting of this session; None if it is unknown, or if this role may not read it."""
    current: str | None = value("SELECT pg_catalog.current_setting(%s, true)", [name])
    return current


def memory_exists() -> bool:
    return bool(value("SELECT pg_catalog.to_regclass('message_memories') IS NOT NULL"))


def stored_model() -> str | None:
    """The current model, which made the stored vectors; None before the first. One query.

    Unlike ``current_model.current_model`` it also answers if the extension is missing.
    """
    names = EmbeddingModel.objects.filter(current=True).values_list("name", flat=True)
    return names.first()


def vector_schema() -> sql.SQL:
    """The schema of the extension, quoted. One query. Raises VectorUnavailable."""
    return extension.schema(connection)
