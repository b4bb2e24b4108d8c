"""Recall's table message_memories, compared with the messages that its rows are made of."""

from psycopg import sql

from retrieval.doctor.fixes import BACKFILL, statement
from retrieval.doctor.queries import value
from retrieval.doctor.report import Check, Finding, failed, passed
from retrieval.models import message_tables

# Rows ``p`` of deleted messages.
COUNT_LEFTOVER = sql.SQL("""
    SELECT count(*) FROM message_memories p WHERE (p.id & 1) = {kind_bit}
        AND NOT EXISTS (SELECT FROM {table} m WHERE m.id = p.id >> 1)
""")
# Locks: the rows that it deletes.
DELETE_LEFTOVER = sql.SQL("""
    DELETE FROM message_memories p WHERE (p.id & 1) = {kind_bit}
        AND NOT EXISTS (SELECT FROM {table} m WHERE m.id = p.id >> 1)
""")
# Rows whose copies of owner, conversation or role differ from the message's.
COUNT_MISPLACED = sql.SQL("""
    SELECT count(*) FROM message_memories p JOIN {table} m ON p.id = m.id * 2 + {kind_bit}
    WHERE (p.user_id, p.conversation, p.by_user)
        IS DISTINCT FROM (m.user_id, m.{conversation} * 2 + {kind_bit}, m.role = 'user')
""")
# Locks: the rows that it changes.
UPDATE_MISPLACED = sql.SQL("""
    UPDATE message_memories p SET user_id = m.user_id,
        conversation = m.{conversation} * 2 + {kind_bit}, by_user = m.role = 'user',
        terms = message_terms(m.user_id, m.content, m.created_at)
            || content_term(m.user_id, m.content)
    FROM {table} m
    WHERE p.id = m.id * 2 + {kind_bit} AND (p.user_id, p.conversation, p.by_user)
        IS DISTINCT FROM (m.user_id, m.{conversation} * 2 + {kind_bit}, m.role = 'user')
""")
# Rows that say "embedded" of messages without a vector, as after the column was dropped and added.
COUNT_WITHOUT_VECTOR = sql.SQL("""
    SELECT count(*) FROM message_memories p JOIN {table} m ON p.id = m.id * 2 + {kind_bit}
    WHERE p.model IS NOT NULL AND m.embedding IS NULL
""")
# Locks: the rows that it changes.
UPDATE_WITHOUT_VECTOR = sql.SQL("""
    UPDATE message_memories p SET bits = NULL, model = NULL FROM {table} m
    WHERE p.id = m.id * 2 + {kind_bit} AND p.model IS NOT NULL AND m.embedding IS NULL
""")


def no_leftover_rows() -> Finding:
    """Rows of deleted messages, which recall would still rank by."""
    detail, fixes = _compare(COUNT_LEFTOVER, DELETE_LEFTOVER)
    if fixes:
        return failed(f"recall's table has rows of deleted messages: {detail}", "\n".join(fixes))
    return passed("recall's table has no row without its message")


def rows_belong_to_owner() -> Finding:
    """Owner, conversation and role of each row; --isolation tries recall itself."""
    detail, fixes = _compare(COUNT_MISPLACED, UPDATE_MISPLACED)
    if fixes:
        return failed(
            f"recall's table gives messages to another user or conversation: {detail}",
            "\n".join(fixes),
        )
    total = value("SELECT count(*) FROM message_memories")
    return passed(
        f"each of {total:,} rows of recall's table has its message's user; --isolation tries "
        "recall itself"
    )


def embedded_rows_have_vectors() -> Finding:
    """Whether each message that recall's table calls embedded has a vector. Reads no vector."""
    detail, fixes = _compare(COUNT_WITHOUT_VECTOR, UPDATE_WITHOUT_VECTOR)
    if fixes:
        return failed(
            f"recall's table calls messages embedded that have no vector: {detail}",
            "\n".join([*fixes, BACKFILL]),
        )
    return passed("each message that recall's table calls embedded has a vector")


def _compare(count: sql.SQL, repair: sql.SQL) -> tuple[str, list[str]]:
    """What ``count`` counts for each message table, and the statements that repair it."""
    counts = {table: int(value(count.format(**table.names))) for table in message_tables()}
    wrong = {table: rows for table, rows in counts.items() if rows}
    detail = ", ".join(f"{rows:,} of {table.table}" for table, rows in wrong.items())
    return detail, [statement(repair.format(**table.names)) for table in wrong]


CHECKS = [
    Check("criterion.5", rows_belong_to_owner),
    Check("messages.gone", no_leftover_rows),
    Check("messages.vectors", embedded_rows_have_vectors),
]
