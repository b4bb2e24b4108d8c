"""Which messages are pending: without a vector of the current model, and to be embedded.

Those that are set aside, switched off or tainted are not.

A message without a row in message_memories is pending too: ``fill_words`` inserts the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from django.db import connection
from psycopg import sql

from retrieval import db
from retrieval.forgetting import not_tainted
from retrieval.message_tables import MessageTable
from retrieval.models import EmbeddingModel, message_tables
from retrieval.schema.timeouts import transaction_without_timeouts

RETRY_BATCH_ROWS = 500  # of one transaction
# ``m`` is the message, ``p`` its row in message_memories or NULL, ``c`` the current model or NULL.
HAS_NO_VECTOR = sql.SQL("(p.model IS NULL OR p.model IS DISTINCT FROM c.id)")
PENDING = sql.SQL("({} AND p.embedding_error IS NULL)").format(HAS_NO_VECTOR)
FAILED = sql.SQL("({} AND p.embedding_error IS NOT NULL)").format(HAS_NO_VECTOR)
# Written or edited in the last minute: a server may still be embedding it. A minute and not some
# seconds, because an answer is embedded when it is finished, and is as old as its question.
YOUNG = sql.SQL("(greatest(m.created_at, m.edited_at) > now() - interval '1 minute')")
# Reads the index message_memories_pending by id: 1 ms among 1,000,000 rows, however few are
# pending. The ORDER BY names all its columns, and HAS_OLD_MODEL compares them as one row: with an
# equality for the model the planner may scan the primary key past all embedded rows, 60 to 140 ms.
# OFFSET 0: with statistics of empty tables it would read all rows of memory for each message.
# No texts: they are read when the messages are claimed (PENDING_AMONG). Locks: none.
NEXT_ROWS = sql.SQL("""
    SELECT m.id, {young} FROM message_memories p CROSS JOIN LATERAL (
        SELECT * FROM {table} WHERE id = p.id >> 1 OFFSET 0) m
    WHERE {model} AND (p.id & 1) = {kind_bit} AND p.id > %(after)s AND p.id <= %(last)s
        AND p.embedding_error IS NULL AND {remembered} AND {not_tainted}
    ORDER BY p.model, p.id & 1, p.id LIMIT %(limit)s
""")
HAS_NO_MODEL = sql.SQL("p.model IS NULL")
HAS_OLD_MODEL = sql.SQL(
    "(p.model, p.id & 1, p.id) > (%(model)s, {kind_bit}, %(after)s) AND p.model <= %(model)s"
)
# Reads the whole table. Locks: none.
COUNT = sql.SQL("""
    SELECT count(*) FILTER (WHERE is_pending),
        coalesce(sum(length(content)) FILTER (WHERE is_pending), 0),
        count(*) FILTER (WHERE is_embedded), count(*) FILTER (WHERE is_failed),
        coalesce(max(id) FILTER (WHERE is_pending), 0),
        coalesce(bool_or(is_embedded AND is_young), false)
    FROM (
        SELECT m.id, m.content, {pending} AND {not_tainted} AS is_pending,
            p.model = c.id AS is_embedded, {failed} AS is_failed, {young} AS is_young
        FROM {table} m LEFT JOIN message_memories p ON p.id = m.id * 2 + {kind_bit}
        LEFT JOIN embedding_models c ON CASE
            WHEN %(model)s::text IS NULL THEN c.current ELSE c.name = %(model)s END
        WHERE m.content <> '' AND {remembered}
        OFFSET 0  -- so that is_pending is computed once
    ) message
""")
# A user's answers that would be pending if they were not tainted. Locks: none.
COUNT_TAINTED = sql.SQL("""
    SELECT count(*) FROM message_memories p JOIN {table} m ON m.id = p.id >> 1
    LEFT JOIN embedding_models c ON c.current
    WHERE p.user_id = %(user)s AND (p.id & 1) = {kind_bit} AND NOT p.by_user
        AND {pending} AND {remembered} AND NOT {not_tainted}
""")
# Locks: the row of message_memories.
SET_ASIDE = sql.SQL("""
    UPDATE message_memories p SET embedding_error = %(reason)s FROM {table} m
    WHERE m.id = %(id)s AND p.id = m.id * 2 + {kind_bit} AND m.content = %(content)s
""")
# The pending ones among some messages. Only lookups by primary key. Locks: none.
PENDING_AMONG = sql.SQL("""
    SELECT m.id, m.user_id, m.content, m.role = 'user', {young}
    FROM {table} m LEFT JOIN message_memories p ON p.id = {message_ref}
    LEFT JOIN embedding_models c ON c.current
    WHERE m.id = ANY (%(ids)s::bigint[]) AND m.content <> '' AND {pending} AND {remembered}
        AND {not_tainted}
    ORDER BY m.id
""")
# SKIP LOCKED: a locked row is getting an embedding, or another text. Locks: the updated rows.
RETRY_FAILED = sql.SQL("""
    WITH batch AS MATERIALIZED (
        SELECT id FROM message_memories WHERE embedding_error IS NOT NULL AND (id & 1) = {kind_bit}
        ORDER BY id LIMIT %(rows)s FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE message_memories p SET embedding_error = NULL FROM batch WHERE p.id = batch.id
""")
# Locks: the rows that it changes. SKIP LOCKED: as RETRY_FAILED.
RETRY = sql.SQL("""
    WITH batch AS MATERIALIZED (
        SELECT id FROM message_memories
        WHERE id = ANY (%(refs)s::bigint[]) AND embedding_error IS NOT NULL
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE message_memories p SET embedding_error = NULL FROM batch WHERE p.id = batch.id
""")

Text: TypeAlias = tuple[
    int, str
]  # (user id, content): only a user's own equal texts are bought once


class NextRow(NamedTuple):
    """A pending message that is still to be claimed. ``young``: as of Row."""

    pk: int
    young: bool


@dataclass(frozen=True)
class Row:
    """A pending message. ``young``: a server may be embedding it now."""

    pk: int
    user_id: int
    content: str
    by_user: bool
    young: bool

    @property
    def text(self) -> Text:
        return self.user_id, self.content


@dataclass(frozen=True)
class Counts:
    """The messages of a table: pending (and their characters), embedded, set aside.

    ``last_pending`` is the highest id of a pending one, 0 if there is none. ``server_embeds``:
    there are young embedded ones, so a server is probably embedding new messages.
    """

    pending: int
    pending_chars: int
    embedded: int
    failed: int
    last_pending: int
    server_embeds: bool


def count(table: MessageTable, *, model: str | None) -> Counts:
    """The table's messages as if ``model`` were the current one; None for the database's own.

    One statement, which reads the table: for commands. No timeout ends it. Raises NoMemory.
    """
    with transaction_without_timeouts(connection):
        return Counts(*db.execute(for_table(COUNT, table), {"model": model})[0])


def count_tainted(user_id: int) -> int:
    """How many answers of the user are not pending only because they are tainted.

    One statement for each message table. Raises NoMemory.
    """
    params = {"user": user_id}
    tables = message_tables()
    return sum(int(db.execute(for_table(COUNT_TAINTED, table), params)[0][0]) for table in tables)


def models_of_pending() -> list[int | None]:
    """The models that pending rows may have vectors of: None, then each but the current one.

    One statement.
    """
    old_models = EmbeddingModel.objects.filter(current=False).order_by("id")
    with db.require_memory():
        return [None, *old_models.values_list("id", flat=True)]


def next_rows(
    table: MessageTable, *, model: int | None, after: int, last: int, limit: int
) -> list[NextRow]:
    """The oldest pending rows, after id ``after`` up to ``last``, with vectors by ``model``.

    One statement.
    """
    after, last = table.pack_ref(after), table.pack_ref(last)
    params = {"after": after, "last": last, "limit": limit, "model": model}
    return [NextRow(*row) for row in db.execute(next_rows_statement(table, model), params)]


def next_rows_statement(table: MessageTable, model: int | None) -> sql.Composed:
    """The statement of ``next_rows``; a test checks its plan."""
    return for_table(NEXT_ROWS, table, model=condition_of(table, model))


def condition_of(table: MessageTable, model: int | None) -> sql.Composable:
    """SQL: whether row ``p`` has no model, or the old one %(model)s, after %(after)s."""
    return HAS_NO_MODEL if model is None else HAS_OLD_MODEL.format(**table.names)


def set_aside(table: MessageTable, row: Row, reason: str) -> bool:
    """Store why the service refused the row, which is then not pending. One statement.

    False if the row has another text by now.
    """
    params = {"id": row.pk, "content": row.content, "reason": reason}
    return bool(db.execute(for_table(SET_ASIDE, table), params)[0][0])


def retry_failed(table: MessageTable) -> int:
    """Make rows that were set aside pending again; how many. One statement for RETRY_BATCH_ROWS."""
    retried = 0
    statement, params = for_table(RETRY_FAILED, table), {"rows": RETRY_BATCH_ROWS}
    while rows := int(db.execute(statement, params)[0][0]):
        retried += rows
    return retried


def pending_among(table: MessageTable, ids: Sequence[int]) -> list[Row]:
    """The pending ones of these messages. One statement."""
    rows = db.execute(for_table(PENDING_AMONG, table), {"ids": list(ids)})
    return [Row(*row) for row in rows]


def retry(table: MessageTable, ids: Sequence[int]) -> int:
    """Make those of these messages that were set aside pending again; how many. One statement."""
    refs = [table.pack_ref(pk) for pk in ids]
    return int(db.execute(RETRY, {"refs": refs})[0][0])


def for_table(statement: sql.SQL, table: MessageTable, **parts: sql.Composable) -> sql.Composed:
    """The statement for one message table, with {pending} and so on, and the table's names.

    At most one query in 20 s.
    """
    return statement.format(
        pending=PENDING,
        failed=FAILED,
        young=YOUNG,
        remembered=table.is_remembered,
        not_tainted=not_tainted(table),
        **table.names,
        **parts,
    )
