"""The indexes of memory and of the admin's lists that are missing or invalid, and their repair."""

from retrieval.doctor.expected_schema import shared
from retrieval.doctor.fixes import create, drop_index
from retrieval.models import recalled_tables
from retrieval.queries import rows
from retrieval.reindex.build_progress import read_build

# An interrupted REINDEX CONCURRENTLY leaves name_ccnew or name_ccold; an interrupted CREATE INDEX
# CONCURRENTLY an invalid index.
INVALID = """
    SELECT c.relname FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = ANY (
            SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(%s::text[]) name)
        AND (NOT i.indisvalid OR NOT i.indisready OR c.relname ~ '_cc(new|old)[0-9]*$')
    ORDER BY c.relname
"""
EXISTING = "SELECT indexname FROM pg_catalog.pg_indexes WHERE indexname = ANY (%s)"


def fixes_of_memory_indexes() -> list[str]:
    """The statements that build the missing or invalid indexes of ``memory_indexes``."""
    creates = memory_indexes()
    existing = {name for (name,) in rows(EXISTING, [list(creates)])}
    invalid = invalid_indexes(recalled_tables())
    fixes = []
    for name, build in creates.items():
        if name in invalid:
            fixes += [drop_index(name), build]
        elif name not in existing:
            fixes.append(build)
    return fixes


def memory_indexes() -> dict[str, str]:
    """The statement that builds each index without blocking writes, by name."""
    return {index.name: create(index) for index in shared("INDEX")}


def invalid_indexes(tables: list[str]) -> set[str]:
    """The names of the tables' indexes that no build completes any more.

    Tables on which an index is being built now are left out. One query, and one for each table.
    """
    quiet = [table for table in tables if read_build(table) is None]
    return {name for (name,) in rows(INVALID, [quiet])}
