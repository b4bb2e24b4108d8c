"""Stores embeddings in the rows of their messages, and reads vectors that are already paid for."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pgvector
from django.db import transaction
from psycopg import sql

from retrieval import db
from retrieval.message_tables import MessageTable, select_message
from retrieval.models import MessageMemory, message_tables
from retrieval.sql_files import read_statement
from retrieval.vectors import Vector

# The text is part of the condition: an edit that came meanwhile wins. So is the model;
# current_model.switch sees to it that it stays the same until the triggers have run.
# The transaction does not wait for the disk: if the database server crashes within a second, the
# message is pending again. Locks the row.
STORE = sql.SQL("""
    UPDATE {table} SET embedding = %(embedding)b WHERE id = %(id)s AND content = %(content)s
        AND EXISTS (SELECT FROM embedding_models WHERE current AND name = %(model)s)
        AND set_config('synchronous_commit', 'off', true) IS NOT NULL
""")
STORE_BATCH = read_statement(Path(__file__).with_name("store_batch.sql"))
KNOWN = read_statement(Path(__file__).with_name("known_embeddings.sql"))
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
def _store_batch_statement(table: MessageTable) -> sql.Composed:
    return STORE_BATCH.format(vector=db.VECTOR_SCHEMA, **table.names)


def known(user_id: int, content: str, *, model: str) -> Vector | None:
    """The embedding of an equal text of the same user. One statement. Raises NoMemory."""
    text = user_id, content
    return _known([text], model).get(text)


def known_of(texts: Sequence[tuple[int, str]], *, model: str) -> dict[tuple[int, str], Vector]:
    """Embeddings of those ``(user, content)`` that equal a text that the same user has embedded.

    One transaction, which looks up each different text by an index. Raises NoMemory.
    """
    with transaction.atomic():
        db.execute(BY_INDEX_ONLY, {})
        return _known(list(dict.fromkeys(texts)), model)


def _known(texts: Sequence[tuple[int, str]], model: str) -> dict[tuple[int, str], Vector]:
    return {
        texts[place - 1]: pgvector.Vector.from_binary(embedding).to_numpy()
        for place, embedding in db.execute(known_statement(), known_parameters(texts, model))
    }


def known_parameters(texts: Sequence[tuple[int, str]], model: str) -> dict[str, Any]:
    """The parameters of ``known_statement``."""
    return {
        "users": [user for user, _ in texts],
        "contents": [content for _, content in texts],
        "model": model,
    }


@db.composed_once
def known_statement() -> sql.Composed:
    """The statement of ``known`` and ``known_of``; a test checks its plans."""
    columns, ref = sql.SQL("content, embedding"), sql.SQL("same.id")
    text = select_message(message_tables(), columns, ref=ref)
    return KNOWN.format(text=text, vector=db.VECTOR_SCHEMA)


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
