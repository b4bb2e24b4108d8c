"""The HNSW index, and index builds that let reads and writes go on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, Error
from django.db.backends.base.base import BaseDatabaseWrapper
from pgvector.django import HnswIndex
from psycopg import sql

from retrieval import queries
from retrieval.db_errors import error_name
from retrieval.schema import extension, locks
from retrieval.schema.timeouts import without_timeouts

CLIENT_CHECK = "1s"  # a build whose client was killed ends within this
CLEANUP_LOCK_TIMEOUT = "5s"  # after a failed build: a transaction that reads the table holds it up
SET_CLIENT_CHECK = "SELECT pg_catalog.set_config('client_connection_check_interval', %s, false)"
IS_VALID = """
    SELECT i.indisvalid FROM pg_catalog.pg_index i
    WHERE i.indexrelid = pg_catalog.to_regclass(%s)
"""
# Whether another session builds an index of the same table. Of a role of which this one is no
# member, pg_stat_progress_create_index has only the process: its lock says which table it is.
IS_BEING_BUILT = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_locks l ON l.relation = i.indrelid
        JOIN pg_catalog.pg_stat_progress_create_index p ON p.pid = l.pid AND p.datid = l.database
        WHERE i.indexrelid = pg_catalog.to_regclass(%s)
            AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'
            AND p.datname = pg_catalog.current_database())
"""
# Whether another session has changed indisvalid and not committed it: a build releases its lock
# before it commits.
IS_BEING_COMMITTED = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_locks l ON l.transactionid = i.xmax
        WHERE i.indexrelid = pg_catalog.to_regclass(%s))
"""
# Locks of all three: SHARE UPDATE EXCLUSIVE on the table, so reads and writes go on.
CREATE = sql.SQL("""
    CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table}
    USING hnsw (embedding {vector}.vector_cosine_ops)
    WITH (m = {m}, ef_construction = {ef_construction})
""")
DROP = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {name}")
REINDEX = sql.SQL("REINDEX INDEX CONCURRENTLY {name}")


class VectorIndex(HnswIndex):
    """An HNSW index for cosine distance, with a name of up to PostgreSQL's own 63 characters.

    Django's limit of 30 is for other databases; docs/promises.md, "Tables", names longer ones.
    """

    max_name_length = 63  # NAMEDATALEN - 1

    def __init__(
        self, *, name: str, m: int = 16, ef_construction: int = 64, **options: Any
    ) -> None:
        # 16 and 64 are pgvector's own defaults.
        options.setdefault("fields", ["embedding"])
        options.setdefault("opclasses", ["vector_cosine_ops"])
        super().__init__(name=name, m=m, ef_construction=ef_construction, **options)


def read_validity(connection: BaseDatabaseWrapper, name: str) -> bool | None:
    """Whether the index is valid; None if there is none. One query."""
    for (is_valid,) in queries.rows(IS_VALID, [name], connection=connection):
        return bool(is_valid)
    return None


def create_statement(
    connection: BaseDatabaseWrapper, table: str, index: VectorIndex
) -> sql.Composed:
    """The statement that builds the HNSW index. One query. Raises VectorUnavailable."""
    return CREATE.format(
        name=sql.Identifier(index.name),
        table=sql.Identifier(table),
        vector=extension.schema(connection),
        m=sql.Literal(index.m),
        ef_construction=sql.Literal(index.ef_construction),
    )


def build(connection: BaseDatabaseWrapper, table: str, index: VectorIndex) -> None:
    """Build the HNSW index, as ``ensure`` does."""
    ensure(connection, index.name, create_statement(connection, table, index))


def ensure(connection: BaseDatabaseWrapper, name: str, create: str | sql.Composable) -> None:
    """Run CREATE INDEX CONCURRENTLY unless the index is valid; first drop an INVALID one.

    If another session builds it, waits for the end of that. A build that fails or is interrupted
    drops what it left; after a kill the next run does. Lock: SHARE UPDATE EXCLUSIVE on the table,
    so reads and writes go on; it waits for the transactions that are open.
    """
    while read_validity(connection, name) is False:
        _wait_for_build(connection, name)
        drop_invalid(connection, name)
    if not read_validity(connection, name):
        with cleanup_on_failure(
            lambda: drop_invalid(connection, name, lock_timeout=CLEANUP_LOCK_TIMEOUT), name
        ):
            execute(connection, create)


@contextmanager
def cleanup_on_failure(remove: Callable[[], object], name: str) -> Iterator[None]:
    """Call ``remove`` if the build of the index inside fails or is interrupted."""
    try:
        yield
    except (Error, KeyboardInterrupt):
        try:
            remove()
        except Error as error:
            locks.notify_operator(
                f"{name}: what the build left could not be removed ({error_name(error)}); "
                "the next run removes it"
            )
        raise


def drop(connection: BaseDatabaseWrapper, name: str, *, lock_timeout: str = "0") -> None:
    """Drop the index CONCURRENTLY, if it exists. Lock: as ``ensure``."""
    execute(connection, DROP.format(name=sql.Identifier(name)), lock_timeout=lock_timeout)


def drop_invalid(connection: BaseDatabaseWrapper, name: str, *, lock_timeout: str = "0") -> None:
    """Drop the index CONCURRENTLY if it is INVALID and no other session builds one on the table.

    Lock: as ``ensure``.
    """
    if not _is_being_built(connection, name) and read_validity(connection, name) is False:
        drop(connection, name, lock_timeout=lock_timeout)


def _wait_for_build(connection: BaseDatabaseWrapper, name: str) -> None:
    """Wait until no other session builds an index on the same table.

    It polls. A build may wait for a session that waits inside LOCK or DROP INDEX: a deadlock.
    """
    if _is_being_built(connection, name):
        locks.notify_operator(f"another session builds {name}: waiting for it")
        while _is_being_built(connection, name):
            time.sleep(locks.POLL_S)


def _is_being_built(connection: BaseDatabaseWrapper, name: str) -> bool:
    """In this order: what a build has changed before it released its lock is seen then."""
    return any(
        queries.value(query, [name], connection=connection)
        for query in (IS_BEING_BUILT, IS_BEING_COMMITTED)
    )


def execute(
    connection: BaseDatabaseWrapper, statement: str | sql.Composable, *, lock_timeout: str = "0"
) -> None:
    """Run a statement that builds or drops an index, without the role's timeouts.

    It ends soon after its client has died.
    """
    with without_timeouts(connection, lock_timeout=lock_timeout):
        with suppress(DatabaseError):  # not every operating system notices a dead client
            queries.execute(SET_CLIENT_CHECK, [CLIENT_CHECK], connection=connection)
        queries.execute(statement, connection=connection)
