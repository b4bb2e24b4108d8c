"""Build the HNSW indexes anew, drop them, make them again: while everybody reads and writes, and after a kill."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import psycopg
from django.apps import apps
from django.db import OperationalError, connection

from retrieval import db
from retrieval.message_tables import MessageTable
from retrieval.models import Embedded
from retrieval.schema import indexes, locks
from retrieval.schema.indexes import VectorIndex

# pgvector's own bounds; https://github.com/pgvector/pgvector#index-options and its hnsw.h
LEAST_M, MOST_M = 2, 100
LEAST_EF, MOST_EF = 4, 1000
PAGE_BYTES = (
    8192  # on disk an embedding of 1,536 numbers fills one page; measured in docs/benchmarks.md
)
GRAPH_BYTES = (
    6_400  # in memory, while it is built: the vector and what stands beside it whatever m is
)
GRAPH_BYTES_PER_M = 60
LEFTOVERS = """
    SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = pg_catalog.to_regclass(%s) AND NOT i.indisvalid ORDER BY 1
"""
PRESENT = """
    SELECT pg_catalog.pg_relation_size(c.oid), i.indisvalid, c.reloptions
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
    WHERE c.oid = pg_catalog.to_regclass(%s)
"""
ROWS = "SELECT count(*) FROM message_memories WHERE model IS NOT NULL AND (id & 1) = %(number)s"
# The planner counts the pages of the table itself, and vectors lie beside it: by its rule 30,000 rows, whose graph
# takes a minute, are not worth a second process.
PARALLEL = "SET min_parallel_table_scan_size = 0"
ALONE = "SET max_parallel_maintenance_workers = 0"
MEMORY = "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem'))"


@dataclass(frozen=True)
class Shape:
    """How an HNSW index is built: links of a node, and candidates looked at for each."""

    m: int = 16
    ef_construction: int = 64

    @property
    def problem(self) -> str | None:
        """Why pgvector would not take it."""
        if self.ef_construction < 2 * self.m:
            return f"--ef-construction must be at least twice --m: {2 * self.m} or more"
        return None

    @property
    def options(self) -> list[str]:
        """As pg_class holds them."""
        return [f"m={self.m}", f"ef_construction={self.ef_construction}"]


@dataclass(frozen=True)
class Target:
    """An HNSW index that the models declare, and what there is of it: size 0 and None where it is missing."""

    source: MessageTable
    name: str
    rows: int
    size_bytes: int
    valid: bool | None
    options: list[str]

    @property
    def table(self) -> str:
        """The table of messages."""
        return self.source.table

    @property
    def needed_bytes(self) -> int:
        """On the server's disk, about, beside what is there until the new index takes its place. Of WAL as much."""
        return self.rows * PAGE_BYTES

    def graph_bytes(self, shape: Shape) -> int:
        """Memory that the build takes, about; with less than that in maintenance_work_mem it is much slower."""
        return self.rows * (GRAPH_BYTES + GRAPH_BYTES_PER_M * shape.m)


def targets(table: str | None = None) -> list[Target]:
    """The HNSW indexes of all tables of messages, or of one. Two queries each. Raises sql.NoMemory."""
    return [look(source, name) for source, name in declared() if table in (None, source.table)]


def declared() -> list[tuple[MessageTable, str]]:
    """The names of the HNSW indexes, as the models declare them, by their tables."""
    models = [model for model in apps.get_models() if issubclass(model, Embedded)]
    found = [
        (model.memory_table, index.name)
        for model in models
        for index in model._meta.indexes
        if isinstance(index, VectorIndex)
    ]
    return sorted(found, key=lambda one: one[0].kind_bit)


def rebuild(target: Target, shape: Shape) -> None:
    """The index under its name, of this shape, valid: built anew whatever there is.

    Locks: SHARE UPDATE EXCLUSIVE on the table while it is built, so that reads and writes go on; where the shape
    changes, ACCESS EXCLUSIVE on the index for under a millisecond, asked for as ``locks.change`` does. Run again
    after a kill, it removes what that left.
    """
    drop_leftovers(target.table)
    if indexes.state(connection, target.name) is None:
        create(target, shape)
        return
    if sorted(look(target.source, target.name).options) != sorted(shape.options):
        statement = f'ALTER INDEX "{target.name}" SET ({", ".join(shape.options)})'
        locks.run_with_short_lock(connection, target.name, statement)
    _in_parallel(
        target, lambda: indexes.execute(connection, f'REINDEX INDEX CONCURRENTLY "{target.name}"')
    )


def create(target: Target, shape: Shape) -> None:
    """The index, where there is none that is valid. Locks as ``rebuild``."""
    drop_leftovers(target.table)
    index = VectorIndex(name=target.name, m=shape.m, ef_construction=shape.ef_construction)
    _in_parallel(target, lambda: indexes.build(connection, target.table, index))


def drop(target: Target) -> None:
    """No index any more, and nothing left of one. Locks as ``rebuild``."""
    drop_leftovers(target.table)
    indexes.drop(connection, target.name)


def drop_leftovers(table: str) -> list[str]:
    """Drop what ended builds have left on the table: INVALID indexes with our names, or with those of REINDEX."""
    ours = "|".join(re.escape(name) for source, name in declared() if source.table == table)
    with connection.cursor() as cursor:
        cursor.execute(LEFTOVERS, [table])
        invalid = [str(name) for (name,) in cursor.fetchall()]
    left = [name for name in invalid if re.fullmatch(rf"({ours})(_cc(new|old)\d*)?", name)]
    for name in left:
        indexes.drop(connection, name)
    return left


def _in_parallel(target: Target, build: Callable[[], None]) -> None:
    """Build with max_parallel_maintenance_workers; by one process where there is no shared memory for several."""
    _run(PARALLEL)
    try:
        build()
    except OperationalError as error:
        if not _lacks_shared_memory(error.__cause__):
            raise
        drop_leftovers(target.table)
        _run(ALONE)
        build()


def _lacks_shared_memory(error: BaseException | None) -> bool:
    """Told by the function of PostgreSQL's that found it: words would be in the server's language."""
    return isinstance(error, psycopg.Error) and (error.diag.source_function or "").startswith(
        "dsm_impl"
    )


def _run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def maintenance_work_mem() -> int:
    """Bytes, as it is set for this session. One query."""
    with connection.cursor() as cursor:
        cursor.execute(MEMORY)
        (found,) = cast("tuple[int]", cursor.fetchone())
    return found


def look(source: MessageTable, name: str) -> Target:
    """What there is of the index now. Two queries."""
    ((rows,),) = db.execute(ROWS, {"number": source.kind_bit})
    with connection.cursor() as cursor:
        cursor.execute(PRESENT, [name])
        size, valid, options = cursor.fetchone() or (0, None, None)
    return Target(source, name, int(rows), int(size), valid, list(options or []))
