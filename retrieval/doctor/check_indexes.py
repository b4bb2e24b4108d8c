"""Indexes: both HNSW ones, memory's own, and those that an interrupted build has left behind."""

import re

from django.db import connection

from retrieval.doctor.check_columns import columns_are_right
from retrieval.doctor.fixes import STATUS, drop_index, rebuild_index, statement
from retrieval.doctor.memory_indexes import (
    fixes_of_memory_indexes,
    invalid_indexes,
    memory_indexes,
)
from retrieval.doctor.report import Check, Finding, Status, failed, information, passed
from retrieval.models import message_tables, recalled_tables
from retrieval.queries import rows
from retrieval.reindex.index_state import declared_indexes
from retrieval.schema.indexes import VectorIndex, create_statement

LEFT_BY_REINDEX = re.compile("_cc(new|old)[0-9]*$")
# trap.3: the view's columns are relname and indexrelname.
USAGE = """
    SELECT s.relname, s.indexrelname,
        pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.indexrelid)), s.idx_scan
    FROM pg_catalog.pg_stat_user_indexes s WHERE s.indexrelname = ANY (%s) ORDER BY s.indexrelname
"""
DEFINITION = """
    SELECT a.amname, o.opcname, pg_catalog.pg_get_indexdef(c.oid, 1, true)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_am a ON a.oid = c.relam
    JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
    WHERE i.indexrelid = pg_catalog.to_regclass(%s) AND i.indrelid = pg_catalog.to_regclass(%s)
"""


def vector_indexes_are_valid() -> Finding:
    """Both HNSW indexes, and invalid indexes on memory's tables; index.recall has memory's own."""
    indexes = {index.name: _fix(table.table, index) for table, index in declared_indexes()}
    problems = [
        f"{name} is missing, invalid, or not for cosine distance"
        for name, steps in indexes.items()
        if steps
    ]
    fixes = [step for steps in indexes.values() for step in steps]
    for name in sorted(invalid_indexes(recalled_tables()) - set(indexes) - set(memory_indexes())):
        problems.append(f"an interrupted build has left {name}")
        fixes.append(drop_index(name) if LEFT_BY_REINDEX.search(name) else rebuild_index(name))
    if problems:
        return failed("; ".join(problems), *fixes)
    usage = rows(USAGE, [sorted(indexes)])
    return passed(", ".join(f"{name} on {table}, {size}" for table, name, size, _ in usage))


def _fix(table: str, index: VectorIndex) -> list[str]:
    """What repairs the index; nothing if it is as it should be."""
    if rows(DEFINITION, [index.name, table]) != [("hnsw", "vector_cosine_ops", "embedding")]:
        create = create_statement(connection, table, index)
        return [drop_index(index.name), statement(create)]
    return [rebuild_index(index.name)] if index.name in invalid_indexes([table]) else []


def both_tables_and_indexes() -> Finding:
    """The column and the HNSW index of both tables."""
    for finding in (columns_are_right(), vector_indexes_are_valid()):
        if finding.status is not Status.PASS:
            return finding
    tables = ", ".join(table.table for table in message_tables())
    return passed(f"checked {tables}; {', '.join(index.name for _, index in declared_indexes())}")


def index_usage() -> Finding:
    """How often each HNSW index was used."""
    usage = rows(USAGE, [[index.name for _, index in declared_indexes()]])
    counts = ", ".join(f"{name} {count:,}" for _, name, _, count in usage)
    return information(
        f"times used: {counts or 'no index'}; 0 is not a fault: criterion.6 measures",
        STATUS,
    )


def recall_indexes_are_valid() -> Finding:
    """The indexes of memory and of the admin's lists. Without them all is right, and slow."""
    fixes = fixes_of_memory_indexes()
    if fixes:
        problem = "an index is missing or invalid: recall, the backfill or the admin is slow"
        return failed(problem, *fixes)
    return passed(f"{len(memory_indexes())} indexes of memory and of the admin's lists")


def checks() -> list[Check]:
    return [
        Check("trap.3", vector_indexes_are_valid),
        Check("trap.14", both_tables_and_indexes),
        Check("trap.26", index_usage),
        Check("index.recall", recall_indexes_are_valid),
    ]
