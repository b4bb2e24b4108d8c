"""Which model the stored vectors come from. A row of the database says so, for all processes.

Each vector's row in message_memories has its model's id. A vector is stored, read and compared
only by statements that name the model and require it to be the current one, so vectors of two
models never meet.
"""

import logging
from dataclasses import dataclass

from django.db import connection

from retrieval import db
from retrieval.embeddings import bundled_models
from retrieval.embeddings.errors import EmbeddingError
from retrieval.models import EmbeddingModel, MessageMemory
from retrieval.runtime import Expiring, on_reset
from retrieval.schema import locks

logger = logging.getLogger(__name__)
LOCAL = "local:"  # begins the name of a bundled model
CHECK_AGAIN_S = 15.0  # a process notices a switch within this time
# A statement that stores a vector holds ACCESS SHARE on the table from before it reads the current
# model until its trigger has written the model's id next to the vector. ACCESS EXCLUSIVE waits for
# such statements and lets none begin: else a vector of the old model could get the new one's id.
SWITCH = """
    LOCK TABLE embedding_models IN ACCESS EXCLUSIVE MODE;
    UPDATE embedding_models SET current = false WHERE current;
    INSERT INTO embedding_models (name, current) VALUES (%(name)s, true)
    ON CONFLICT (name) DO UPDATE SET current = true
"""
# Locks nothing. Each count is read from an index.
MODELS = """
    SELECT e.name, e.current, (SELECT count(*) FROM message_memories p WHERE p.model = e.id)
    FROM embedding_models e ORDER BY e.current DESC, e.name
"""
MISMATCH = (
    "the stored vectors come from the model {stored}, the settings name {configured}."
    " Messages are recalled by words until you run manage.py rag_model use"
    " (it tells the cost and asks), or go back to {before}"
)


class ModelMismatch(EmbeddingError):
    """The stored vectors came from another model than the configured one."""


@dataclass(frozen=True)
class StoredModel:
    """A model, and how many messages have a vector by it."""

    name: str
    current: bool
    rows: int


_verified: Expiring[str] = Expiring()  # the model that was the current one at the last check
_logged_mismatches: set[str] = set()
on_reset(_logged_mismatches.clear)


def check_model(name: str, *, again: bool = False) -> None:
    """Make ``name`` the current model if there is none yet.

    No query within CHECK_AGAIN_S after a success, unless ``again``; else one, the first time three.
    Raises NoMemory, and ModelMismatch (logged once) if the stored vectors come from another model.
    """
    if not again and _verified.get() == name:
        return
    current = current_model()
    if current is None:
        _insert_first(name)
        current = current_model()
    if current != name:
        _verified.forget()
        bundled_models.forget_kept()
        raise _mismatch(str(current), name)
    _verified.set(name, seconds=CHECK_AGAIN_S)
    _logged_mismatches.clear()


def _insert_first(name: str) -> None:
    """Does nothing if another process was first: at most one row is current."""
    with db.require_memory():
        EmbeddingModel.objects.bulk_create(
            [EmbeddingModel(name=name, current=True)], ignore_conflicts=True
        )


def refuse_other(name: str | None) -> None:
    """Raises ModelMismatch if the stored vectors come from another model than ``name``.

    One query; changes nothing.
    """
    if name and (other := other_than(name)):
        raise _mismatch(other, name)


def other_than(name: str) -> str | None:
    """The model of the stored vectors if it is not ``name``. One query. Raises NoMemory."""
    current = current_model()
    return None if current == name else current


def current_model() -> str | None:
    """The model of the stored vectors; None before the first. One query. Raises NoMemory."""
    with db.require_memory():
        return EmbeddingModel.objects.filter(current=True).values_list("name", flat=True).first()


def models() -> list[StoredModel]:
    """Every model in the database, the current one first. One query. Raises NoMemory."""
    return [StoredModel(*row) for row in db.execute(MODELS, {})]


def count_without() -> int:
    """How many messages in memory have no vector. One query, on an index. Raises NoMemory."""
    with db.require_memory():
        return MessageMemory.objects.filter(model=None).count()


def switch(name: str) -> None:
    """Make ``name`` the current model; vectors of others stay stored, and are not used.

    One transaction of a few milliseconds. Locks embedding_models with ACCESS EXCLUSIVE, as
    ``locks.run_with_short_lock`` does: statements of memory's, and those that write messages, wait
    for at most 300 ms. Raises OperationalError if the lock was not to be had.
    """
    locks.run_with_short_lock(connection, "embedding_models", SWITCH, {"name": name})
    _verified.forget()
    bundled_models.forget_kept()
    _logged_mismatches.clear()


def settings_of(model: str) -> list[str]:
    """The settings, as lines of ``.env``, that embed by this model."""
    if model.startswith(LOCAL):
        return ["EMBEDDINGS=local", *bundled_models.choice_of(model)]
    return ["EMBEDDINGS=openai", f"EMBEDDING_MODEL={model}"]


def _mismatch(stored: str, configured: str) -> ModelMismatch:
    before = ", ".join(settings_of(stored))
    reason = MISMATCH.format(stored=stored, configured=configured, before=before)
    # After a switch between bundled models there is nothing to do: the next call follows it.
    if reason not in _logged_mismatches and not bundled_models.follows(stored):
        _logged_mismatches.add(reason)
        logger.error("Error generating embeddings: %s", reason)
    return ModelMismatch(reason)
