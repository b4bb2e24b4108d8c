"""Rebuild, create and drop HNSW indexes under traffic; each can be killed and run again."""

import re
from collections.abc import Callable
from functools import partial

import psycopg
from django.db import OperationalError, connection
from psycopg import sql

from retrieval import queries
from retrieval.reindex.index_state import HnswOptions, IndexState, declared_indexes, read_state
from retrieval.schema import indexes, locks
from retrieval.schema.indexes import VectorIndex

# Locks: none.
FIND_INVALID = """
    SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = pg_catalog.to_regclass(%s) AND NOT i.indisvalid ORDER BY 1
"""
# The planner judges by the pages of the table, but vectors are stored outside them (TOAST): by its
# rule 30,000 rows, whose graph takes a minute, are not worth a second process.
ALLOW_PARALLEL = "SET min_parallel_table_scan_size = 0"
FORBID_PARALLEL = "SET max_parallel_maintenance_workers = 0"
# Lock: ACCESS EXCLUSIVE on the index for under a millisecond.
SET_OPTIONS = sql.SQL("ALTER INDEX {index} SET (m = {m}, ef_construction = {ef_construction})")


def rebuild(index: IndexState, options: HnswOptions) -> None:
    """Build the index again under its name, with these options; afterwards it is valid.

    Locks: SHARE UPDATE EXCLUSIVE on the table during the build. If the options change, ACCESS
    EXCLUSIVE on the index for under a millisecond, by ``locks.run_with_short_lock``. After a kill
    the next run removes what was left.
    """
    drop_leftovers(index.table.table)
    if indexes.read_validity(connection, index.name) is None:
        create(index, options)
        return
    name = sql.Identifier(index.name)
    if sorted(read_state(index.table, index.name).reloptions) != sorted(options.reloptions):
        set_options = SET_OPTIONS.format(
            index=name,
            m=sql.Literal(options.m),
            ef_construction=sql.Literal(options.ef_construction),
        )
        locks.run_with_short_lock(connection, index.name, set_options)
    reindex = indexes.REINDEX.format(name=name)
    _build_in_parallel(index, lambda: indexes.execute(connection, reindex))


def create(index: IndexState, options: HnswOptions) -> None:
    """Build the index unless a valid one exists. Locks as ``rebuild``."""
    drop_leftovers(index.table.table)
    declared = VectorIndex(name=index.name, m=options.m, ef_construction=options.ef_construction)
    _build_in_parallel(index, lambda: indexes.build(connection, index.table.table, declared))


def drop(index: IndexState) -> None:
    """Drop the index and what unfinished builds left of it. Locks as ``rebuild``."""
    drop_leftovers(index.table.table)
    indexes.drop(connection, index.name)


def drop_leftovers(table: str, *, lock_timeout: str = "0") -> None:
    """Drop what unfinished builds left on the table: INVALID indexes with our names.

    None while another session builds one. Each waits at most ``lock_timeout`` for transactions
    that are open; 0: without limit. REINDEX appends _ccnew or _ccold, and a number, to a name.
    """
    ours = "|".join(
        re.escape(index.name) for owner, index in declared_indexes() if owner.table == table
    )
    for (name,) in queries.rows(FIND_INVALID, [table]):
        if re.fullmatch(rf"({ours})(_cc(new|old)\d*)?", name):
            indexes.drop_invalid(connection, name, lock_timeout=lock_timeout)


def _build_in_parallel(index: IndexState, build: Callable[[], None]) -> None:
    """Build with max_parallel_maintenance_workers; alone if shared memory is too small.

    A build that fails or is interrupted drops what it left.
    """
    remove = partial(drop_leftovers, index.table.table, lock_timeout=indexes.CLEANUP_LOCK_TIMEOUT)
    queries.execute(ALLOW_PARALLEL)
    with indexes.cleanup_on_failure(remove, index.name):
        try:
            build()
        except OperationalError as error:
            if not _lacks_shared_memory(error.__cause__):
                raise
            drop_leftovers(index.table.table)
            queries.execute(FORBID_PARALLEL)
            build()


def _lacks_shared_memory(error: BaseException | None) -> bool:
    """Decides by the function of PostgreSQL that failed: its message may be in any language."""
    function = error.diag.source_function if isinstance(error, psycopg.Error) else None
    return (function or "").startswith("dsm_impl")
