"""What a backfill would cost; also on a database without memory's tables."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import connection
from psycopg import sql

from retrieval import db
from retrieval.backfill.pending import count, for_table
from retrieval.embeddings import bundled_models, cost
from retrieval.embeddings.batching import truncate
from retrieval.models import message_tables
from retrieval.schema.timeouts import transaction_without_timeouts

PAGE_ROWS = 500  # texts in this process's memory at a time
# Each text of a user once, as it is bought, and not at all if the user has its vector already. The
# rows of ``all_texts`` are narrow, 60 MB for 1,000,000, sorted or hashed by the server within its
# work_mem. Locks: none.
TEXTS_TO_BUY = sql.SQL("""
    WITH all_texts AS ({all_texts}), to_buy AS MATERIALIZED (
        SELECT min(ref) FILTER (WHERE is_pending) AS ref FROM all_texts
        GROUP BY user_id, text_hash HAVING bool_or(is_pending) AND NOT bool_or(is_embedded)
    ) {contents}
""")
ALL_TEXTS = sql.SQL("""
    SELECT m.id * 2 + {kind_bit} AS ref, m.user_id, hashtextextended(m.content, 0) AS text_hash,
        {pending} AND {remembered} AND {not_tainted} AS is_pending,
        coalesce(p.model = c.id, false) AS is_embedded
    FROM {table} m LEFT JOIN message_memories p ON p.id = m.id * 2 + {kind_bit}
    LEFT JOIN embedding_models c ON c.current
    WHERE m.content <> ''
""")
CONTENTS = sql.SQL("""
    SELECT m.content FROM to_buy JOIN {table} m ON to_buy.ref = m.id * 2 + {kind_bit}
""")
# Without memory's tables nothing is embedded and nothing is set aside.
ALL_TEXTS_WITHOUT_MEMORY = sql.SQL("""
    SELECT m.id * 2 + {kind_bit} AS ref, m.user_id, hashtextextended(m.content, 0) AS text_hash,
        {remembered} AS is_pending, false AS is_embedded
    FROM {table} m WHERE m.content <> ''
""")
COUNT_WITHOUT_MEMORY = sql.SQL("""
    SELECT count(*) FROM {table} m WHERE m.content <> '' AND {remembered}
""")


@dataclass(frozen=True)
class Estimate:
    """Pending messages, and the tokens to embed them: counted, or TOKENS_PER_MESSAGE for each."""

    messages: int
    tokens: int
    exact: bool

    @property
    def cost_usd(self) -> float:
        """US dollars, at the configured model's price."""
        return cost.cost_usd(self.tokens)


def estimate(*, exact: bool = False) -> Estimate:
    """What embedding all pending messages would cost. One statement a table.

    "Pending" goes by the database's model, whatever the settings name. Without memory's tables, or
    with an older form of them, every message that may be embedded is pending. ``exact`` reads the
    texts in one read-only transaction, PAGE_ROWS in memory at a time, and counts as the backfill
    does: equal texts of a user once, each cut to what one call takes.
    """
    try:
        messages = sum(count(table, model=None).pending for table in message_tables())
        all_texts = ALL_TEXTS
    except db.NoMemory:
        messages, all_texts = _count_without_memory(), ALL_TEXTS_WITHOUT_MEMORY
    if exact:
        tokens = sum(map(count_tokens, _read_texts(all_texts)))
        return Estimate(messages, tokens, exact=True)
    return Estimate(messages, messages * cost.TOKENS_PER_MESSAGE, exact=False)


def _count_without_memory() -> int:
    with transaction_without_timeouts(connection), connection.cursor() as cursor:
        cursor.execute(_for_all_tables(COUNT_WITHOUT_MEMORY))
        return sum(int(messages) for (messages,) in cursor.fetchall())


def _read_texts(all_texts: sql.SQL) -> Iterator[str]:
    """The texts to buy, read by a cursor on the server.

    In a transaction that works behind any pooler: DISABLE_SERVER_SIDE_CURSORS is about cursors that
    Django holds past the end of a transaction.
    """
    statement = TEXTS_TO_BUY.format(
        all_texts=_for_all_tables(all_texts), contents=_for_all_tables(CONTENTS)
    )
    with transaction_without_timeouts(connection), connection.chunked_cursor() as cursor:
        cursor.execute(statement)
        while page := cursor.fetchmany(PAGE_ROWS):
            yield from (content for (content,) in page)


def _for_all_tables(statement: sql.SQL) -> sql.Composed:
    return sql.SQL(" UNION ALL ").join(for_table(statement, table) for table in message_tables())


def count_tokens(text: str) -> int:
    """The tokens of what a call takes of the text, by the configured model's tokenizer."""
    if settings.EMBEDDINGS == "local":
        return bundled_models.count_tokens(text)
    return truncate(text).tokens
