"""What makes a large backfill slow, in lines before its start: the HNSW indexes, and its pauses.

The times are those of ``python -m benchmarks.index_build`` on two idle cores with 20,000 rows:
docs/benchmarks.md, "Building the HNSW indexes". Calls and pauses take as long in both cases.
"""

from dataclasses import dataclass, replace

from retrieval.message_tables import MessageTable
from retrieval.reindex.index_state import HnswOptions, IndexState, missing_memory, read_states

MIN_PAUSES_S = 120  # below, a run is short anyway
MIN_PAUSES = 100  # who chooses a long pause for a few batches knows it
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
                f"{table.table}: to store {pending:,} vectors takes about"
                f" {_minutes(times.with_index_s)} with the HNSW index, and about"
                f" {_minutes(times.drop_and_create_s)} with rag_index drop hnsw before this command"
                f" and rag_index create hnsw after it{_memory(index, times)}"
            )
    return None


def pauses(batches: int, sleep_s: float) -> str | None:
    """One line, if the pauses between many batches take minutes."""
    if batches < MIN_PAUSES or batches * sleep_s < MIN_PAUSES_S:
        return None
    return (
        f"the pauses between {batches:,} batches take {_minutes(batches * sleep_s)};"
        " --sleep 0 leaves them out"
    )


def _memory(index: IndexState, times: Times) -> str:
    """What the last command needs for that: with less memory a build is much slower."""
    full = replace(index, rows=times.pending + times.stored)
    options = missing_memory(full.graph_bytes(HnswOptions()))
    return f", if that has {options}" if options else ""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"
