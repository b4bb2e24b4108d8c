"""Give every message its row in message_memories: recall finds its words, and it can be embedded.

For messages older than memory's triggers, and after a change of the text search configuration.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.db import connection
from psycopg import sql

from retrieval import db
from retrieval.forgetting import has_stale_source
from retrieval.message_tables import IS_COPY, MessageTable
from retrieval.schema.timeouts import transaction_without_timeouts
from retrieval.sql_files import read_statement

BATCH_ROWS = 500  # of a transaction, 0.1 to 0.2 s: an edit of one of its messages waits for it
LAST_ID = sql.SQL("SELECT coalesce(max(id), 0) FROM {table}")  # locks nothing
# Reads the table and message_memories if no row is missing. Locks nothing.
IS_NEEDED = sql.SQL("""
    SELECT EXISTS (SELECT FROM {table} m WHERE m.content <> '' AND NOT {is_copy} AND NOT EXISTS (
        SELECT FROM message_memories p WHERE p.id = m.id * 2 + {kind_bit}
            AND p.search_config_id = (SELECT id FROM search_configs WHERE current)))
""")
FILL_WORDS = read_statement(Path(__file__).with_name("fill_words.sql"))


def is_needed(table: MessageTable) -> bool:
    """Whether a message has no row by the current search configuration.

    One statement, which no timeout ends.
    """
    with transaction_without_timeouts(connection):
        return bool(db.execute(IS_NEEDED.format(is_copy=IS_COPY, **table.names), {})[0][0])


@dataclass
class Fill(Iterator[int]):
    """Goes once through the table, BATCH_ROWS a transaction; yields how many rows each step wrote.

    Ends with the message that was the last at the start. May be stopped and run again; after a step
    that raised, ``next`` tries the same one again.
    Locks: FOR SHARE on the messages of a batch. Raises NoMemory.
    """

    table: MessageTable
    _after: int = field(default=0, init=False)
    _table_end: int | None = field(default=None, init=False)

    def __next__(self) -> int:
        if self._table_end is None:
            ((self._table_end,),) = db.execute(LAST_ID.format(**self.table.names), {})
        params = {"after": self._after, "table_end": self._table_end, "rows": BATCH_ROWS}
        ((last, filled),) = db.execute(_statement(self.table), params)
        if last is None:
            raise StopIteration
        self._after = last
        return int(filled)


@db.composed_once
def _statement(table: MessageTable) -> sql.Composed:
    return FILL_WORDS.format(
        has_stale_source=has_stale_source(table),
        is_copy=IS_COPY,
        vector=db.VECTOR_SCHEMA,
        **table.names,
    )
