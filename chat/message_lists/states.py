"""The state of a message's embedding: embedded, pending, failed or off; and its vector's model."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from psycopg import sql

from retrieval import db
from retrieval.forgetting import not_tainted
from retrieval.message_tables import HAS_TEXT, MessageTable
from retrieval.queries import rows

EMBEDDED, PENDING, FAILED, OFF = STATES = ("embedded", "pending", "failed", "off")
# Lookups by primary key for each message ``m``, never joins: for a join the planner may read whole
# tables. A message has the user of its conversation.
SETTINGS_OF = sql.SQL("""
    LEFT JOIN LATERAL (
        SELECT c.memory FROM {conversations} c WHERE c.id = m.{conversation} LIMIT 1
    ) of_conversation ON true
    LEFT JOIN LATERAL (
        SELECT s.enabled FROM memory_switches s WHERE s.user_id = m.user_id LIMIT 1
    ) of_user ON true
""")
MEMORY_OF = sql.SQL("""
    LEFT JOIN LATERAL (
        SELECT p.model, p.embedding_error FROM message_memories p WHERE p.id = {message_ref} LIMIT 1
    ) p ON true
""")
# "off": nothing to embed (HAS_TEXT), switched off, or tainted before it was embedded.
STATE = sql.SQL("""
    CASE WHEN NOT of_conversation.memory OR NOT coalesce(of_user.enabled, true)
            OR NOT {has_text} THEN 'off'
        WHEN p.model = (SELECT id FROM embedding_models WHERE current) THEN 'embedded'
        WHEN p.embedding_error IS NOT NULL THEN 'failed'
        WHEN {not_tainted} THEN 'pending' ELSE 'off' END
""")
# On a schema without memory nothing is embedded.
WITHOUT_MEMORY = sql.SQL(
    "LEFT JOIN LATERAL (SELECT NULL::smallint AS model, NULL AS embedding_error) p ON true"
)
STATE_WITHOUT_MEMORY = sql.SQL("""
    CASE WHEN NOT of_conversation.memory OR NOT coalesce(of_user.enabled, true)
            OR NOT {has_text} THEN 'off' ELSE 'pending' END
""")
NAME = sql.SQL("(SELECT e.name FROM embedding_models e WHERE e.id = p.model)")
# Locks: none.
STATES_OF = sql.SQL("""
    SELECT m.id, {state}, {name} FROM {table} m {joins} WHERE m.id = ANY (%(ids)s::bigint[])
""")


def has_memory() -> bool:
    """Whether the database has memory's tables."""
    try:
        db.vector_type()
    except db.NoMemory:
        return False
    return True


def memory_statement() -> AbstractContextManager[None]:
    """Around a statement that names memory's tables if they are there."""
    return db.require_memory() if has_memory() else nullcontext()


def state_joins(table: MessageTable) -> sql.Composed:
    """SQL: what ``state`` and find.CONDITIONS read, to be joined to message ``m``."""
    memory = MEMORY_OF if has_memory() else WITHOUT_MEMORY
    return sql.SQL("{} {}").format(SETTINGS_OF.format(**table.names), memory.format(**table.names))


def state(table: MessageTable) -> sql.Composed:
    """SQL: one of STATES, of message ``m`` with ``state_joins``."""
    if not has_memory():
        return STATE_WITHOUT_MEMORY.format(has_text=HAS_TEXT)
    return STATE.format(has_text=HAS_TEXT, not_tainted=not_tainted(table))


def add_states(table: MessageTable, messages: Iterable[Any]) -> None:
    """Set ``state`` and ``model_name`` (None without a vector) of each message. One statement."""
    by_id = {message.pk: message for message in messages}
    name = NAME if has_memory() else sql.NULL
    parts = {"state": state(table), "name": name, "joins": state_joins(table)}
    statement = STATES_OF.format(**parts, **table.names)
    with memory_statement():
        of_messages = rows(statement, {"ids": list(by_id)})
    for pk, state_name, model_name in of_messages:
        by_id[pk].state, by_id[pk].model_name = state_name, model_name
