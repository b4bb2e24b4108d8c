"""Which model the stored vectors come from. A row of the database says so, and every process goes by it.

Each vector's row in message_memories has its model's number. A vector is stored, found and compared only by
statements that name the model and require it to be the current one, so vectors of two models never meet.
"""

import logging
from dataclasses import dataclass

from django.db import connection

from retrieval import db
from retrieval.embeddings import local_model
from retrieval.embeddings.errors import EmbeddingError
from retrieval.runtime import Expiring, on_reset
from retrieval.schema import locks

logger = logging.getLogger(__name__)
CHECK_AGAIN_S = 15.0  # a process notices a switch within this
CLAIM = """
    INSERT INTO embedding_models (name, current)
    SELECT %(name)s, true WHERE NOT EXISTS (SELECT FROM embedding_models WHERE current) ON CONFLICT DO NOTHING
"""
CURRENT = "SELECT name FROM embedding_models WHERE current"
# Any statement that stores a vector has the table in its hands (ACCESS SHARE) from before it looks at the current
# model until its trigger has written the model's number beside the vector. The lock is one that waits for those
# and lets none begin: else a vector of the old model could be given the number of the new one.
SWITCH = """
    LOCK TABLE embedding_models IN ACCESS EXCLUSIVE MODE;
    UPDATE embedding_models SET current = false WHERE current;
    INSERT INTO embedding_models (name, current) VALUES (%(name)s, true)
    ON CONFLICT (name) DO UPDATE SET current = true
"""
ROWS = """
    SELECT e.name, e.current, (SELECT count(*) FROM message_memories p WHERE p.model = e.id)
    FROM embedding_models e ORDER BY e.current DESC, e.name
"""
WITHOUT = "SELECT count(*) FROM message_memories WHERE model IS NULL"
MISMATCH = (
    "the stored vectors come from the model {stored}, the settings name {configured}. Messages are recalled by words "
    "until you run manage.py rag_model use (it tells the cost and asks), or go back to {before}"
)


class ModelMismatch(EmbeddingError):
    """The database's vectors came from another model than the configured one; they are never compared."""


@dataclass(frozen=True)
class Model:
    """A model that vectors came from, and how many messages have one by it."""

    name: str
    current: bool
    rows: int


_verified: Expiring[str] = Expiring()  # the model that was the database's at the last check
_logged_mismatches: set[str] = set()
on_reset(_logged_mismatches.clear)


def check_model(name: str, *, again: bool = False) -> None:
    """Make ``name`` the database's model where it has none yet. At most two queries, at times, or ``again``.

    Raises ModelMismatch, said once in the log, where the stored vectors came from another; NoMemory.
    """
    if not again and _verified.get() == name:
        return
    current = current_model()
    if current is None:
        db.execute(CLAIM, {"name": name})
        current = current_model()
    if current != name:
        _verified.forget()
        raise _mismatch(str(current), name)
    _verified.set(name, seconds=CHECK_AGAIN_S)
    _logged_mismatches.clear()


def refuse_other(name: str | None) -> None:
    """ModelMismatch where the stored vectors came from another model than ``name``; nothing is changed. One query."""
    if name and (other := other_than(name)):
        raise _mismatch(other, name)


def other_than(name: str) -> str | None:
    """The model of the stored vectors where it is not ``name``. One query. Raises NoMemory."""
    current = current_model()
    return None if current == name else current


def current_model() -> str | None:
    """The name of the model whose vectors are stored; None before the first. One query. Raises NoMemory."""
    rows = db.execute(CURRENT, {})
    return str(rows[0][0]) if rows else None


def models() -> list[Model]:
    """Every model that the database knows, the current one first. One query, from an index. Raises NoMemory."""
    return [Model(*row) for row in db.execute(ROWS, {})]


def count_without() -> int:
    """How many messages that recall knows have no vector. One query, from an index. Raises NoMemory."""
    return int(db.execute(WITHOUT, {})[0][0])


def switch(name: str) -> None:
    """Make ``name`` the database's model; vectors of others stay where they are, and are not used.

    One transaction of a few milliseconds. Lock: ACCESS EXCLUSIVE on embedding_models, asked for as ``locks.change``
    does; memory's statements wait for it, and what writes messages, 300 ms at the most. OperationalError: it could
    not be had.
    """
    locks.run_with_short_lock(connection, "embedding_models", SWITCH, {"name": name})
    _verified.forget()
    _logged_mismatches.clear()


def _mismatch(stored: str, configured: str) -> ModelMismatch:
    before = (
        "EMBEDDINGS=local"
        if stored == local_model.NAME
        else f"EMBEDDINGS=openai, EMBEDDING_MODEL={stored}"
    )
    words = MISMATCH.format(stored=stored, configured=configured, before=before)
    if words not in _logged_mismatches:
        _logged_mismatches.add(words)
        logger.error("Error generating embeddings: %s", words)
    return ModelMismatch(words)
