"""Stores embeddings in the rows of their messages, and reads vectors that are already paid for."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from django.db import transaction
from psycopg import sql

from retrieval import db, token_usage
from retrieval.message_tables import MessageTable, unpack_ref
from retrieval.models import MessageMemory, message_tables
from retrieval.sql_files import read_statement, read_statements
from retrieval.token_usage import Tokens
from retrieval.vectors import Vector

Text = tuple[int, str]  # of a user: id and content
# The text is part of the condition: an edit that came meanwhile wins. So is the model;
# current_model.switch sees to it that it stays the same until the triggers have run.
# The transaction does not wait for the disk: if the database server crashes within a second, the
# message is pending again. Locks the row.
STORE = sql.SQL("""
    UPDATE {table} SET embedding = %(embedding)b WHERE id = %(id)s AND content = %(content)s
        AND EXISTS (SELECT FROM embedding_models WHERE current AND name = %(model)s)
        AND set_config('synchronous_commit', 'off', true) IS NOT NULL
""")
# STORE, and what the vector cost. Locks: also what token_usage.COUNTED locks.
STORE_AND_COUNT = sql.SQL("WITH {counted} {store}")
STORE_BATCH = read_statement(Path(__file__).with_name("store_batch.sql"))
KNOWN_SQL = read_statements(Path(__file__).with_name("known_embeddings.sql"))
KNOWN = sql.SQL(
    KNOWN_SQL["equal"]
    .format(
        term=sql.SQL("content_term(%(user)s::bigint, %(content)s::text)"),
        user_id=sql.SQL("%(user)s::bigint"),
    )
    .as_string()
)
KNOWN_OF = KNOWN_SQL["known_of"].format(
    equal=KNOWN_SQL["equal"].format(
        term=sql.Identifier("wanted", "term"), user_id=sql.Identifier("wanted", "user_id")
    )
)
# Locks nothing.
EMBEDDINGS = sql.SQL("""
    SELECT id, content, embedding FROM {table}
    WHERE id = ANY (%(ids)s::bigint[]) AND embedding IS NOT NULL
""")
# After an import the index of terms has a long pending list: then reading a small table for each of
# a hundred texts would look cheaper to the planner. Until the end of the transaction.
BY_INDEX_ONLY = sql.SQL("SET LOCAL enable_seqscan = off")
COUNT = """
    SELECT count(*) FILTER (WHERE m.model = c.id), count(*) FILTER (
        WHERE m.embedding_error IS NOT NULL AND (m.model IS NULL OR m.model IS DISTINCT FROM c.id))
    FROM message_memories m LEFT JOIN embedding_models c ON c.current
    WHERE m.user_id = %(user)s AND NOT m.conversation = ANY (%(hidden)s::bigint[])
"""
FIRST_BATCH_ROWS = 20  # with an HNSW index that takes 0.2 s
MAX_BATCH_S = 0.1  # how long a transaction of ``store_all`` holds its rows; edits wait for it
_batch_rows: dict[str, int] = {}  # by table, as measured


def store(table: MessageTable, pk: int, content: str, embedding: Vector, *, model: str) -> bool:
    """Store the row's embedding if it still holds ``content`` and ``model`` is the current one.

    True if it was stored. One statement. Raises NoMemory.
    """
    params = {"id": pk, "content": content, "embedding": embedding, "model": model}
    return bool(db.execute(_store_statement(table), params)[0][0])


def store_and_count(
    table: MessageTable, text: tuple[int, str, Vector], *, model: str, user_id: int, tokens: int
) -> None:
    """``store`` the row ``(id, content, embedding)``, and count what it cost the user's turn.

    The tokens are counted whether or not it is stored. One statement. Raises NoMemory.
    """
    pk, content, embedding = text
    if not tokens or not token_usage.has_table():
        store(table, pk, content, embedding, model=model)
        return
    params = {"id": pk, "content": content, "embedding": embedding, "model": model}
    counted = Tokens(embedding_tokens=tokens).parameters(user_id)
    try:
        db.execute(_store_and_count_statement(table), params | counted)
    except db.NoMemory:
        token_usage.forget_table()  # it may be the missing one
        raise


def store_all(table: MessageTable, rows: Sequence[tuple[int, str, Vector]], *, model: str) -> int:
    """Store the embeddings of many rows ``(id, content, embedding)``; how many were stored.

    One statement a batch, each of a size that takes about MAX_BATCH_S, however slow the index is;
    one more for each row that was locked meanwhile. Raises NoMemory.
    """
    stored = start = 0
    while start < len(rows):
        size = _batch_rows.setdefault(table.table, FIRST_BATCH_ROWS)
        batch = rows[start : start + size]
        started = time.monotonic()
        stored += _store_batch(table, batch, model)
        # At most four times as many rows in the next batch.
        seconds = max(time.monotonic() - started, MAX_BATCH_S / 4)
        if len(batch) == size or seconds > MAX_BATCH_S:
            _batch_rows[table.table] = max(1, int(len(batch) * MAX_BATCH_S / seconds))
        start += len(batch)
    return stored


def _store_batch(table: MessageTable, rows: Sequence[tuple[int, str, Vector]], model: str) -> int:
    ids, contents, vectors = map(list, zip(*rows, strict=True))
    params = {"ids": ids, "contents": contents, "embeddings": vectors, "model": model}
    stored = {row[0] for row in db.execute(_store_batch_statement(table), params)}
    locked = [row for row in rows if row[0] not in stored]
    return len(stored) + sum(store(table, *row, model=model) for row in locked)


@db.composed_once
def _store_statement(table: MessageTable) -> sql.Composed:
    return STORE.format(**table.names)


@db.composed_once
def _store_and_count_statement(table: MessageTable) -> sql.Composed:
    store = STORE.format(**table.names)
    return STORE_AND_COUNT.format(counted=token_usage.COUNTED, store=store)


@db.composed_once
def _store_batch_statement(table: MessageTable) -> sql.Composed:
    return STORE_BATCH.format(vector=db.VECTOR_SCHEMA, **table.names)


def known(user_id: int, content: str, *, model: str) -> Vector | None:
    """The embedding of an equal text of the same user. One statement, two if there is one.

    Raises NoMemory.
    """
    refs = db.execute(KNOWN, {"user": user_id, "content": content, "model": model})
    text = user_id, content
    return _embeddings_of({ref: text for (ref,) in refs}).get(text)


def known_of(texts: Sequence[Text], *, model: str) -> dict[Text, Vector]:
    """Embeddings of those texts that equal one that the same user has embedded.

    One transaction, which looks up each different text by an index. Raises NoMemory.
    """
    texts = list(dict.fromkeys(texts))
    users, contents = map(list, zip(*texts, strict=True)) if texts else ([], [])
    with transaction.atomic():
        db.execute(BY_INDEX_ONLY, {})
        refs = db.execute(KNOWN_OF, {"users": users, "contents": contents, "model": model})
        return _embeddings_of({ref: texts[place] for place, ref in refs if ref is not None})


def _embeddings_of(texts: Mapping[int, Text]) -> dict[Text, Vector]:
    """The embeddings of messages by ref, without those whose text is another now."""
    embeddings: dict[Text, Vector] = {}
    for table in message_tables():
        ids = [pk for kind_bit, pk in map(unpack_ref, texts) if kind_bit == table.kind_bit]
        rows = db.execute(_embeddings_statement(table), {"ids": ids}, binary=True) if ids else []
        for pk, content, embedding in rows:
            text = texts[table.pack_ref(pk)]
            if content == text[1]:
                embeddings[text] = embedding.to_numpy()
    return embeddings


@db.composed_once
def _embeddings_statement(table: MessageTable) -> sql.Composed:
    return EMBEDDINGS.format(**table.names)


def count_all(user_id: int) -> int:
    """How many of the user's messages are in memory. One statement. Raises NoMemory."""
    with db.require_memory():
        return MessageMemory.objects.filter(user_id=user_id).count()


def count(user_id: int, hidden: list[int]) -> tuple[int, int]:
    """How many of the user's messages have an embedding by the current model, how many failed.

    Without those of the hidden conversations. One statement. Raises NoMemory.
    """
    embedded, failed = db.execute(COUNT, {"user": user_id, "hidden": hidden})[0]
    return int(embedded), int(failed)


def has_vectors(user_id: int, *, model: str) -> bool:
    """Whether a message of the user has a vector by this model, the current one.

    One statement. Raises NoMemory.
    """
    with db.require_memory():
        return MessageMemory.objects.filter(
            user_id=user_id, model__current=True, model__name=model
        ).exists()


def vacuum(tables: Sequence[MessageTable]) -> None:
    """VACUUM (ANALYZE) the message tables and memory's.

    Locks them with SHARE UPDATE EXCLUSIVE: reads and writes go on.
    """
    for name in [*(message_table.table for message_table in tables), "message_memories"]:
        db.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(name)), {})
