"""Whether a large backfill should drop the HNSW indexes first: storing a vector is then faster.

The times are those of ``python -m benchmarks.index_build`` on two idle cores with 20,000 rows:
docs/benchmarks.md, "Building the HNSW indexes". Calls and pauses take as long in both cases.
"""

from dataclasses import dataclass, replace

from retrieval.message_tables import MessageTable
from retrieval.reindex.index_state import HnswOptions, IndexState, missing_memory, read_states

MIN_ROWS = 5_000  # for fewer, three commands instead of one save some seconds only
STORE_WITH_INDEX_S = 1 / 345  # a row
STORE_S = 1 / 5_621
BUILD_S = 7.7 / 20_000  # a row of the finished index


@dataclass(frozen=True)
class Times:
    """Seconds to store the ``pending`` rows of a table that has ``stored`` vectors."""

    pending: int
    stored: int

    @property
    def with_index_s(self) -> float:
        return self.pending * STORE_WITH_INDEX_S

    @property
    def drop_and_create_s(self) -> float:
        """To store them without the index, and then to build it for all rows."""
        return self.pending * STORE_S + (self.pending + self.stored) * BUILD_S


def advice(table: MessageTable, pending: int) -> str | None:
    """One line, if it saves time to drop the table's HNSW index and to create it again.

    Five queries at most, none for MIN_ROWS or less.
    """
    if pending <= MIN_ROWS:
        return None
    for index in read_states(table.table):
        times = Times(pending, index.rows)
        if index.valid and times.drop_and_create_s < times.with_index_s:
            return (
                f"{table.table}: with its HNSW index, storing {pending:,} vectors takes about"
                f" {_minutes(times.with_index_s)}; rag_index drop hnsw, this command, and"
                f" rag_index create hnsw take about {_minutes(times.drop_and_create_s)}"
                f"{_memory(index, times)}"
            )
    return None


def _memory(index: IndexState, times: Times) -> str:
    """What the last of the commands needs for that: with less memory a build is much slower."""
    full = replace(index, rows=times.pending + times.stored)
    options = missing_memory(full.graph_bytes(HnswOptions()))
    return f" if the last of them has {options}" if options else ""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"
