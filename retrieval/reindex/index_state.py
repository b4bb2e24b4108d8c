"""The HNSW indexes that the models declare: their state, and what building them needs."""

from dataclasses import dataclass

from django.apps import apps
from django.db.models import F

from retrieval import queries
from retrieval.db import require_memory
from retrieval.message_tables import MessageTable
from retrieval.models import Embedded, MessageMemory
from retrieval.schema.indexes import VectorIndex

# pgvector's own bounds; https://github.com/pgvector/pgvector#index-options and its hnsw.h
M_RANGE = (2, 100)
EF_CONSTRUCTION_RANGE = (4, 1000)
# On disk a vector of 1,536 numbers fills one page; measured in docs/benchmarks.md.
PAGE_BYTES = 8192
# Memory of an element during the build: the vector with its bookkeeping, and the links.
GRAPH_BYTES = 6_400
GRAPH_BYTES_PER_M = 60
# Locks: none.
READ_INDEX = """
    SELECT pg_catalog.pg_relation_size(c.oid), i.indisvalid, c.reloptions
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
    WHERE c.oid = pg_catalog.to_regclass(%s)
"""
READ_MEMORY_SETTING = """
    SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem'))
"""


@dataclass(frozen=True)
class HnswOptions:
    """How an HNSW index is built: links of a node, and candidates that are compared for them."""

    m: int = 16
    ef_construction: int = 64

    @property
    def reloptions(self) -> list[str]:
        """The options in the form of pg_class.reloptions."""
        return [f"m={self.m}", f"ef_construction={self.ef_construction}"]


@dataclass(frozen=True)
class IndexState:
    """A declared HNSW index; ``size_bytes`` is 0 and ``valid`` None if it does not exist.

    ``rows`` counts the table's vectors; ``reloptions`` are as in pg_class.
    """

    table: MessageTable
    name: str
    rows: int
    size_bytes: int
    valid: bool | None
    reloptions: list[str]

    @property
    def disk_bytes(self) -> int:
        """About what a build needs on the server's disk, and again as WAL."""
        return self.rows * PAGE_BYTES

    def graph_bytes(self, options: HnswOptions) -> int:
        """About the memory of a build; with less maintenance_work_mem it is much slower."""
        return self.rows * (GRAPH_BYTES + GRAPH_BYTES_PER_M * options.m)


def declared_indexes() -> list[tuple[MessageTable, VectorIndex]]:
    """The message tables and their HNSW indexes, as the models declare them, by kind bit."""
    declared = [
        (model.memory_table, index)
        for model in apps.get_models()
        if issubclass(model, Embedded)
        for index in model._meta.indexes
        if isinstance(index, VectorIndex)
    ]
    return sorted(declared, key=lambda pair: pair[0].kind_bit)


def read_states(table: str | None = None) -> list[IndexState]:
    """All declared indexes, or those of one table. Two queries each. Raises NoMemory."""
    return [
        read_state(message_table, index.name)
        for message_table, index in declared_indexes()
        if table in (None, message_table.table)
    ]


def read_state(table: MessageTable, name: str) -> IndexState:
    """Two queries. Raises NoMemory."""
    vectors = MessageMemory.objects.alias(kind_bit=F("id").bitand(1)).filter(
        kind_bit=table.kind_bit, model__isnull=False
    )
    with require_memory():
        rows = vectors.count()
    for size_bytes, valid, reloptions in queries.rows(READ_INDEX, [name]):
        return IndexState(table, name, rows, size_bytes, valid, list(reloptions or []))
    return IndexState(table, name, rows, 0, None, [])


def maintenance_work_mem() -> int:
    """Bytes, as set for this session. One query."""
    return int(queries.value(READ_MEMORY_SETTING))


def missing_memory(graph_bytes: int) -> str | None:
    """The PGOPTIONS of a build whose graph would not fit into memory, else None. One query."""
    if graph_bytes <= maintenance_work_mem():
        return None
    return f'PGOPTIONS="-c maintenance_work_mem={graph_bytes // 2**20 + 1}MB"'
