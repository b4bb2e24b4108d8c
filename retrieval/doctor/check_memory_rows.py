"""The table message_memories, compared with the messages that its rows are made of."""

from psycopg import sql

from retrieval.doctor.fixes import BACKFILL, statement
from retrieval.doctor.report import Check, Finding, failed, passed
from retrieval.models import message_tables
from retrieval.queries import value

# ``p`` is a row of message_memories, ``m`` its message.
DELETED = sql.SQL("""
    (p.id & 1) = {kind_bit} AND NOT EXISTS (SELECT FROM {table} m WHERE m.id = p.id >> 1)
""")
COUNT_DELETED = sql.SQL("SELECT count(*) FROM message_memories p WHERE {condition}")
REMOVE_DELETED = sql.SQL("DELETE FROM message_memories p WHERE {condition}")
MISPLACED = sql.SQL("""
    p.id = {message_ref} AND (p.user_id, p.conversation, p.by_user)
        IS DISTINCT FROM (m.user_id, m.{conversation} * 2 + {kind_bit}, m.role = 'user')
""")
# message_memories says that they are embedded, for example after the column was dropped and added.
WITHOUT_VECTOR = sql.SQL("""
    p.id = {message_ref} AND p.model IS NOT NULL AND m.embedding IS NULL
""")
COUNT = sql.SQL("SELECT count(*) FROM message_memories p, {table} m WHERE {condition}")
# Locks of these two: the rows that they change.
COPY_AGAIN = sql.SQL("""
    UPDATE message_memories p SET user_id = m.user_id,
        conversation = m.{conversation} * 2 + {kind_bit}, by_user = m.role = 'user',
        terms = message_terms(m.user_id, m.content, m.created_at)
            || content_term(m.user_id, m.content)
    FROM {table} m WHERE {condition}
""")
FORGET_VECTOR = sql.SQL("""
    UPDATE message_memories p SET bits = NULL, model = NULL FROM {table} m WHERE {condition}
""")


def no_rows_of_deleted_messages() -> Finding:
    """Rows of deleted messages, which recall would still rank by."""
    counts, fixes = _compare(DELETED, COUNT_DELETED, REMOVE_DELETED)
    if fixes:
        return failed(f"message_memories has rows of deleted messages: {counts}", *fixes)
    return passed("message_memories has no row without its message")


def rows_belong_to_owner() -> Finding:
    """Owner, conversation and role of each row; rag_doctor --isolation tries recall itself."""
    counts, fixes = _compare(MISPLACED, COUNT, COPY_AGAIN)
    if fixes:
        return failed(
            f"message_memories gives messages to another user or conversation: {counts}", *fixes
        )
    total = value("SELECT count(*) FROM message_memories")
    return passed(f"each of {total:,} rows has its message's user; rag_doctor --isolation tries it")


def embedded_rows_have_vectors() -> Finding:
    """Whether each message that message_memories calls embedded has a vector. Reads no vector."""
    counts, fixes = _compare(WITHOUT_VECTOR, COUNT, FORGET_VECTOR)
    if fixes:
        return failed(
            f"message_memories calls messages embedded that have no vector: {counts}",
            *fixes,
            BACKFILL,
        )
    return passed("each message that message_memories calls embedded has a vector")


def _compare(condition: sql.SQL, count: sql.SQL, repair: sql.SQL) -> tuple[str, list[str]]:
    """How many rows of each table meet the condition, and the statements that repair them."""
    counts, fixes = [], []
    for table in message_tables():
        parts = table.names | {"condition": condition.format(**table.names)}
        if rows := value(count.format(**parts)):
            counts.append(f"{rows:,} of {table.table}")
            fixes.append(statement(repair.format(**parts)))
    return ", ".join(counts), fixes


def checks() -> list[Check]:
    return [
        Check("messages.owners", rows_belong_to_owner),
        Check("messages.gone", no_rows_of_deleted_messages),
        Check("messages.vectors", embedded_rows_have_vectors),
    ]
