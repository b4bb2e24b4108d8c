"""Whether a large backfill should drop the HNSW indexes first: storing a vector is then faster.

The times are those of ``python -m benchmarks.index_build`` on two idle cores with 20,000 rows:
docs/benchmarks.md, "Building the HNSW indexes". Calls and pauses take as long in both cases.
"""

from dataclasses import dataclass

from retrieval.message_tables import MessageTable
from retrieval.reindex.index_state import read_states

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

    Four queries at most, none for MIN_ROWS or less.
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
            )
    return None


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"
