"""Where embeddings are kept, and from which model they came."""

import logging
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from retrieval import sql
from retrieval.embeddings import EmbeddingError
from retrieval.models import sources
from retrieval.sources import Source

logger = logging.getLogger(__name__)
CHECK_AGAIN_S = 15.0  # rag_model use is noticed within this
CLAIM = """
    INSERT INTO embedding_models (name, current)
    SELECT %(name)s, true WHERE NOT EXISTS (SELECT FROM embedding_models WHERE current) ON CONFLICT DO NOTHING
"""
CURRENT = "SELECT name FROM embedding_models WHERE current"
# The content is part of the condition: an edit that came meanwhile wins.
STORE = """
    UPDATE {table} SET embedding = %(embedding)b::{vector}.vector(1536)
    WHERE id = %(id)s AND content = %(content)s
        AND EXISTS (SELECT FROM embedding_models WHERE current AND name = %(model)s)
"""
KNOWN = """
    WITH same AS MATERIALIZED (
        SELECT id, user_id, model FROM message_memories
        WHERE terms && ARRAY[recall_content_term(%(user)s, %(content)s)] LIMIT 100
    ), model AS MATERIALIZED (SELECT id FROM embedding_models WHERE current AND name = %(model)s)
    SELECT text.embedding::real[] FROM same JOIN model ON same.model = model.id CROSS JOIN LATERAL ({texts}) text
    WHERE same.user_id = %(user)s AND text.content = %(content)s AND text.embedding IS NOT NULL
    LIMIT 1
"""
TEXT = "SELECT content, embedding FROM {table} WHERE id = CASE WHEN (same.id & 1) = {number} THEN same.id >> 1 END"


COUNT = """
    SELECT count(*) FROM message_memories m WHERE user_id = %(user)s AND bits IS NOT NULL
        AND model = (SELECT id FROM embedding_models WHERE current AND name = %(model)s)
        AND NOT conversation = ANY (%(hidden)s::bigint[])
"""


class ModelMismatch(EmbeddingError):
    """The database's vectors came from another model than the configured one; they are never compared."""


@dataclass
class _Checked:
    model: str | None = None  # found to be the database's
    at: float = 0.0
    told: set[str] = field(default_factory=set)


_checked = _Checked()


def check_model(name: str) -> None:
    """Make ``name`` the database's model where it has none yet. At most two queries, at times.

    Raises ModelMismatch, said once in the log, where the stored vectors came from another; NoMemory.
    """
    if _checked.model == name and time.monotonic() - _checked.at < CHECK_AGAIN_S:
        return
    current = current_model()
    if current is None:
        sql.run(CLAIM, {"name": name})
        current = current_model()
    if current != name:
        words = (
            f"the stored vectors come from the model {current}, EMBEDDING_MODEL is {name}: run manage.py rag_model"
        )
        if words not in _checked.told:
            _checked.told.add(words)
            logger.error("Error generating embeddings: %s", words)
        raise ModelMismatch(words)
    _checked.model, _checked.at = name, time.monotonic()


def current_model() -> str | None:
    """The name of the model whose vectors are stored; None before the first. One query. Raises NoMemory."""
    rows = sql.run(CURRENT, {})
    return str(rows[0][0]) if rows else None


def forget_checks() -> None:
    """Ask the database again."""
    _checked.model = None
    _checked.told.clear()


def store(source: Source, pk: int, content: str, embedding: NDArray[np.float32], *, model: str) -> bool:
    """Keep the embedding of the row, whether it still holds ``content`` and ``model`` is the database's.

    One statement. Raises NoMemory.
    """
    params = {"id": pk, "content": content, "embedding": embedding, "model": model}
    return bool(sql.run(STORE.replace("{table}", source.table), params)[0][0])


def known(user_id: int, content: str, *, model: str) -> NDArray[np.float32] | None:
    """The embedding of an equal text of the same user, already paid for. One statement. Raises NoMemory."""
    texts = " UNION ALL ".join(TEXT.format(table=one.table, number=one.number) for one in sources())
    rows = sql.run(KNOWN.replace("{texts}", texts), {"user": user_id, "content": content, "model": model})
    return np.array(rows[0][0], dtype=np.float32) if rows else None


def count_all(user_id: int) -> int:
    """How many of the user's messages recall knows. One statement. Raises NoMemory."""
    return int(sql.run("SELECT count(*) FROM message_memories WHERE user_id = %(user)s", {"user": user_id})[0][0])


def count(user_id: int, hidden: list[int], *, model: str) -> int:
    """How many of the user's messages have an embedding by ``model``, less those of hidden conversations.

    One statement. Raises NoMemory.
    """
    return int(sql.run(COUNT, {"user": user_id, "hidden": hidden, "model": model})[0][0])
