"""Embeddings stored beside their texts, and found again."""

import time
from collections.abc import Sequence

import numpy as np

from retrieval import db
from retrieval.embeddings.embedding_service import Vector
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables

# The content is part of the condition: an edit that came meanwhile wins. So is the model; that it stays the same to
# the statement's end, triggers included, is seen to by current_model.switch.
STORE = """
    UPDATE {table} SET embedding = %(embedding)b::{vector}.vector(1536)
    WHERE id = %(id)s AND content = %(content)s
        AND EXISTS (SELECT FROM embedding_models WHERE current AND name = %(model)s)
"""
# Rows that somebody holds are left out: a statement for many that waited could be part of a deadlock. Recall's rows
# are written here, too: for many at once that is a third of what it costs the trigger, which then has nothing to do.
STORE_FREE = """
    WITH new AS MATERIALIZED (
        SELECT * FROM unnest(%(ids)s::bigint[], %(contents)s::text[], %(embeddings)b::{vector}.vector[])
            v(id, content, embedding)
    ), free AS MATERIALIZED (
        SELECT m.id FROM {table} m WHERE m.id = ANY (%(ids)s::bigint[])
            AND EXISTS (SELECT FROM embedding_models WHERE current AND name = %(model)s)
        ORDER BY m.id FOR NO KEY UPDATE SKIP LOCKED
    ), stored AS (
        UPDATE {table} m SET embedding = new.embedding FROM new JOIN free USING (id)
        WHERE m.id = new.id AND m.content = new.content RETURNING m.id, new.embedding
    ), followed AS (
        UPDATE message_memories p SET bits = {vector}.binary_quantize(stored.embedding)::bit(1536), model = c.id
        FROM stored CROSS JOIN embedding_models c WHERE p.id = stored.id * 2 + {number} AND c.current
    )
    SELECT id FROM stored
"""
FIRST_SLICE = 20  # rows; with an HNSW index that is 0.2 s
_slices: dict[str, int] = {}  # rows, by table, as the last ones took
SLICE_S = 0.1  # how long one transaction of ``store_all`` should hold its rows; an edit of one of them waits for it
# ORDER BY id + 0, since how many rows a term has is guessed at a hundredth of all: with the LIMIT alone a scan of the
# whole table looks cheap, which took half a minute for a hundred texts among a million.
KNOWN = """
    WITH asked AS MATERIALIZED (
        SELECT ord, a.user_id, a.content, content_term(a.user_id, a.content) AS term
        FROM unnest(%(users)s::bigint[], %(contents)s::text[]) WITH ORDINALITY a(user_id, content, ord)
    ), model AS MATERIALIZED (SELECT id FROM embedding_models WHERE current AND name = %(model)s)
    SELECT asked.ord, found.embedding::real[] FROM asked CROSS JOIN LATERAL (
        SELECT text.embedding FROM (
            SELECT id, user_id, model FROM message_memories WHERE terms && ARRAY[asked.term] ORDER BY id + 0 LIMIT 100
        ) same JOIN model ON same.model = model.id CROSS JOIN LATERAL ({texts}) text
        WHERE same.user_id = asked.user_id AND text.content = asked.content AND text.embedding IS NOT NULL LIMIT 1
    ) found
"""
TEXT = "SELECT content, embedding FROM {table} WHERE id = CASE WHEN (same.id & 1) = {number} THEN same.id >> 1 END"


COUNT = """
    SELECT count(*) FILTER (WHERE m.model = c.id),
        count(*) FILTER (WHERE m.embedding_error IS NOT NULL AND (m.model IS NULL OR m.model IS DISTINCT FROM c.id))
    FROM message_memories m LEFT JOIN embedding_models c ON c.current
    WHERE m.user_id = %(user)s AND NOT m.conversation = ANY (%(hidden)s::bigint[])
"""


HAS_VECTORS = """
    SELECT EXISTS (SELECT FROM message_memories m JOIN embedding_models c ON c.current AND c.name = %(model)s
        WHERE m.user_id = %(user)s AND m.model = c.id)
"""


def store(source: MessageTable, pk: int, content: str, embedding: Vector, *, model: str) -> bool:
    """Keep the embedding of the row, whether it still holds ``content`` and ``model`` is the database's.

    One statement. Raises NoMemory.
    """
    params = {"id": pk, "content": content, "embedding": embedding, "model": model}
    return bool(db.execute(STORE.replace("{table}", source.table), params)[0][0])


def store_all(source: MessageTable, rows: Sequence[tuple[int, str, Vector]], *, model: str) -> int:
    """Keep the embeddings of many rows ``(id, content, embedding)`` as ``store`` does each; how many were kept.

    One statement a slice of rows, of such a size that it takes about SLICE_S seconds, however slow the index makes
    it; one more for each row that somebody held meanwhile. Raises NoMemory.
    """
    stored = at = 0
    while at < len(rows):
        size = _slices.setdefault(source.table, FIRST_SLICE)
        part = rows[at : at + size]
        began = time.monotonic()
        stored += _store_slice(source, part, model)
        took_s = max(time.monotonic() - began, SLICE_S / 4)  # at most four times as many next time
        if len(part) == size or took_s > SLICE_S:
            _slices[source.table] = max(1, int(len(part) * SLICE_S / took_s))
        at += len(part)
    return stored


def _store_slice(source: MessageTable, rows: Sequence[tuple[int, str, Vector]], model: str) -> int:
    ids, contents, vectors = zip(*rows, strict=True)
    params = {
        "ids": list(ids),
        "contents": list(contents),
        "embeddings": db.Vectors(vectors),
        "model": model,
    }
    statement = STORE_FREE.replace("{table}", source.table).replace(
        "{number}", str(source.kind_bit)
    )
    stored = {row[0] for row in db.execute(statement, params)}
    held = [row for row in rows if row[0] not in stored]
    return len(stored) + sum(store(source, *row, model=model) for row in held)


def known(user_id: int, content: str, *, model: str) -> Vector | None:
    """The embedding of an equal text of the same user, already paid for. One statement. Raises NoMemory."""
    return known_of([(user_id, content)], model=model).get((user_id, content))


def known_of(texts: Sequence[tuple[int, str]], *, model: str) -> dict[tuple[int, str], Vector]:
    """Those of the texts ``(user, content)`` that the same user has an embedding of. One statement.

    Raises NoMemory.
    """
    stored = " UNION ALL ".join(
        TEXT.format(table=one.table, number=one.kind_bit) for one in message_tables()
    )
    params = {
        "users": [user for user, _ in texts],
        "contents": [content for _, content in texts],
        "model": model,
    }
    rows = db.execute(KNOWN.replace("{texts}", stored), params)
    return {texts[place - 1]: np.array(embedding, dtype=np.float32) for place, embedding in rows}


def count_all(user_id: int) -> int:
    """How many of the user's messages recall knows. One statement. Raises NoMemory."""
    return int(
        db.execute(
            "SELECT count(*) FROM message_memories WHERE user_id = %(user)s", {"user": user_id}
        )[0][0]
    )


def count(user_id: int, hidden: list[int]) -> tuple[int, int]:
    """How many of the user's messages have an embedding by the database's model, and how many were set aside.

    Less those of hidden conversations. One statement. Raises NoMemory.
    """
    embedded, failed = db.execute(COUNT, {"user": user_id, "hidden": hidden})[0]
    return int(embedded), int(failed)


def has_vectors(user_id: int, *, model: str) -> bool:
    """Whether any message of the user has a vector of this model, the current one. One statement. Raises NoMemory."""
    return bool(db.execute(HAS_VECTORS, {"user": user_id, "model": model})[0][0])


def vacuum(tables: Sequence[MessageTable]) -> None:
    """VACUUM (ANALYZE) the tables of messages and recall's. Lock: SHARE UPDATE EXCLUSIVE; reads and writes go on."""
    for table in [*(one.table for one in tables), "message_memories"]:
        db.execute(f"VACUUM (ANALYZE) {table}", {})
