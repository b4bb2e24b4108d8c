"""What a backfill would cost, before it begins; on a schema without memory too."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import connection, transaction

from retrieval import db
from retrieval.backfill import pending
from retrieval.embeddings import cost, local_model
from retrieval.embeddings.batching import fit
from retrieval.models import message_tables

PAGE_ROWS = 500  # texts in this process at a time
# Each text of a user once, as it is bought, and not at all where the user has its vector already. The rows of
# ``seen`` are narrow, 1,000,000 of them 60 MB, sorted or hashed by the server within its work_mem.
TEXTS = """
    WITH seen AS ({seen}), once AS MATERIALIZED (
        SELECT min(reference) FILTER (WHERE waits) AS reference FROM seen
        GROUP BY user_id, text HAVING bool_or(waits) AND NOT bool_or(known)
    ) {texts}
"""
SEEN = """
    SELECT m.id * 2 + {number} AS reference, m.user_id, hashtextextended(m.content, 0) AS text,
        {pending} AND {remembered} AS waits, coalesce(p.model = c.id, false) AS known
    FROM {table} m LEFT JOIN message_memories p ON p.id = m.id * 2 + {number}
    LEFT JOIN embedding_models c ON c.current
    WHERE m.content <> ''
"""
TEXT = "SELECT m.content FROM once JOIN {table} m ON once.reference = m.id * 2 + {number}"
# Without memory's tables nothing has a vector and nothing was set aside.
COUNT_BEFORE = "SELECT count(*) FROM {table} m WHERE m.content <> '' AND {remembered}"
SEEN_BEFORE = """
    SELECT m.id * 2 + {number} AS reference, m.user_id, hashtextextended(m.content, 0) AS text,
        {remembered} AS waits, false AS known
    FROM {table} m WHERE m.content <> ''
"""


@dataclass(frozen=True)
class Estimate:
    """Pending messages, and the tokens that embedding them would take: counted, or TOKENS_PER_MESSAGE for each."""

    messages: int
    tokens: int
    exact: bool

    @property
    def cost_usd(self) -> float:
        """At the configured model's price, in US dollars."""
        return cost.cost_usd(self.tokens)


def estimate(*, exact: bool = False) -> Estimate:
    """What embedding all that is pending would cost, at the configured price. One statement a table.

    Pending goes by the database's model, as everywhere, whatever the settings name. On a schema without memory, or
    with an older form of it, every message that may be embedded is pending. ``exact`` reads the texts, in one
    transaction that changes nothing, PAGE_ROWS of them in memory at a time, and counts as the backfill does: equal
    texts of a user once, each cut to what one call takes.
    """
    try:
        messages = sum(pending.count_pending(one, model=None) for one in message_tables())
        seen = SEEN
    except db.NoMemory:
        messages, seen = _count_before(), SEEN_BEFORE
    if exact:
        return Estimate(messages, sum(map(_tokens_of, _texts(seen))), exact=True)
    return Estimate(messages, messages * cost.TOKENS_PER_MESSAGE, exact=False)


def _count_before() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            " UNION ALL ".join(pending.of(COUNT_BEFORE, one) for one in message_tables())
        )
        return sum(int(count) for (count,) in cursor.fetchall())


def _texts(seen: str) -> Iterator[str]:
    """The texts to be bought, by a cursor on the server: inside a transaction that works behind any pooler, whatever
    DISABLE_SERVER_SIDE_CURSORS is, which is about Django's own, held past the end of theirs."""
    parts = {
        "{seen}": " UNION ALL ".join(pending.of(seen, one) for one in message_tables()),
        "{texts}": " UNION ALL ".join(pending.of(TEXT, one) for one in message_tables()),
    }
    statement = TEXTS
    for name, value in parts.items():
        statement = statement.replace(name, value)
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(statement)
        while page := cursor.fetchmany(PAGE_ROWS):
            yield from (content for (content,) in page)


def _tokens_of(text: str) -> int:
    """By the configured model's tokenizer, of as much of the text as it is given."""
    return local_model.count_tokens(text) if settings.EMBEDDINGS == "local" else fit(text)[1]
