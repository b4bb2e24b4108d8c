"""What several checks ask the database. They lock nothing but ACCESS SHARE."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction
from psycopg import sql

from retrieval.models import EmbeddingModel
from retrieval.queries import execute, rows, value
from retrieval.schema import extension

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
