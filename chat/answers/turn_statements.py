"""The SQL of turns, composed once for each of the two message tables."""

from typing import Any

from django.contrib.auth import get_user_model
from psycopg import sql

from chat.model_rows import ModelRow
from chat.models import KINDS, ChatMessage, Conversation, Message, StandaloneChatMessage
from retrieval import token_usage
from retrieval.queries import rows

Statements = dict[type[Message], str]  # by the model of the messages
# A message's row as a turn needs it: ``embedding`` may be missing from the table.
MESSAGE_ROWS: dict[type[Message], ModelRow[Message]] = {
    model: ModelRow(model, alias="m", without={"embedding", "context"})
    for model in (ChatMessage, StandaloneChatMessage)
}
QUESTION_ROWS: dict[type[Message], ModelRow[Message]] = {
    model: ModelRow(model, alias="q", without={"embedding", "context"}) for model in MESSAGE_ROWS
}


def _for_both_tables(statement: sql.SQL, **parts: sql.Composable) -> Statements:
    """The statement composed for the two message tables, once."""
    return {
        model: statement.format(
            columns=row.columns,
            question_columns=QUESTION_ROWS[model].columns,
            messages=sql.Identifier(model._meta.db_table),
            conversations=sql.Identifier(model.conversation.field.related_model._meta.db_table),
            conversation_id=sql.Identifier(model.conversation.field.column),
            **parts,
        ).as_string()
        for model, row in MESSAGE_ROWS.items()
    }


# Locks: the user's row. The ORM's select_for_update() does the same in 0.7 ms more for every turn.
# The time is read once the row is locked: so the times of a user's turns and edits are in the order
# of their transactions, whatever the clocks of the servers say.
LOCK_USER = (
    sql.SQL("""
    SELECT clock_timestamp()
    FROM (SELECT FROM {users} WHERE id = %(user)s FOR NO KEY UPDATE) locked
""")
    .format(users=sql.Identifier(get_user_model()._meta.db_table))
    .as_string()
)
# Only the process that deletes the running_answers row may write the answer. SAVE_CONTEXT does not
# wait for the disk: what a crash of the database has lost of it is written again. Locks: both rows.
_FINISH = sql.SQL("""
    WITH claimed AS (DELETE FROM running_answers WHERE id = %(running_id)s RETURNING id){counted}
    UPDATE {messages}
    SET content = %(content)s, status = %(status)s, error = %(error)s, truncated = %(truncated)s,
        context = CASE WHEN %(entries)s::jsonb IS NULL THEN coalesce(context, %(context)s::jsonb)
            ELSE coalesce(context, %(context)s::jsonb, '[]') || %(entries)s::jsonb END
    WHERE id = %(answer_id)s AND EXISTS (SELECT FROM claimed)
""")
FINISH = _for_both_tables(_FINISH, counted=sql.SQL(""))
# The turn's tokens are counted even if another process has ended the answer, or the user has
# deleted it. Locks: also what token_usage.COUNTED locks.
FINISH_AND_COUNT = _for_both_tables(_FINISH, counted=sql.SQL(", ") + token_usage.COUNTED)
# Sets the conversation's time; returns it, and the conversations of the user's running answers.
# Locks: the conversation's row.
TOUCH = _for_both_tables(
    sql.SQL("""
    UPDATE {conversations} SET updated_at = clock_timestamp() WHERE id = %(conversation)s
    RETURNING updated_at,
        ARRAY(SELECT {conversation_id} FROM running_answers WHERE user_id = %(user)s)
""")
)
# TOUCH, and if neither the conversation nor the user is busy, the rows of a new turn; their ids are
# NULL otherwise. Locks: the conversation's row and the new ones.
ADD_TURN = _for_both_tables(
    sql.SQL("""
    WITH touched AS (
        UPDATE {conversations} SET updated_at = clock_timestamp() WHERE id = %(conversation)s
        RETURNING updated_at,
            ARRAY(SELECT {conversation_id} FROM running_answers WHERE user_id = %(user)s) AS busy
    ), question AS (
        INSERT INTO {messages} (user_id, {conversation_id}, role, content, created_at)
        SELECT %(user)s, %(conversation)s, 'user', %(content)s, updated_at FROM touched
        WHERE array_position(busy, %(conversation)s) IS NULL
            AND cardinality(busy) < %(max_running)s
        RETURNING id, created_at
    ), answer AS (
        INSERT INTO {messages}
            (user_id, {conversation_id}, role, content, created_at, status, reply_to)
        SELECT %(user)s, %(conversation)s, 'assistant', '', created_at, 'streaming', id
        FROM question RETURNING id, reply_to
    ), running AS (
        INSERT INTO running_answers (user_id, {conversation_id}, message_id)
        SELECT %(user)s, %(conversation)s, id FROM answer RETURNING id
    )
    SELECT updated_at, busy, running.id, answer.id, reply_to
    FROM touched LEFT JOIN answer ON true LEFT JOIN running ON true
""")
)
# Both in one transaction, which does not wait for the disk: what commits later and waits, as FINISH
# does, makes it durable too. Locks: the message's row.
SAVE_CONTEXT = _for_both_tables(
    sql.SQL("""
    SET LOCAL synchronous_commit = off;
    UPDATE {messages} SET context = %(context)s::jsonb WHERE id = %(answer)s
""")
)
# What a crash of the database has lost of SAVE_CONTEXT. Locks: the messages' rows that it changes.
RESTORE_CONTEXTS = _for_both_tables(
    sql.SQL("""
    UPDATE {messages} m SET context = v.context::jsonb
    FROM unnest(%(ids)s::bigint[], %(contexts)s::text[]) v (id, context)
    WHERE m.id = v.id AND m.context IS NULL
""")
)
# The newest answers before a question, each with its own question, and of the newest its context.
# An answer without reply_to belongs to the user's message before it.
# Reads backwards in the index on conversation, time and id. Locks: nothing.
HISTORY = _for_both_tables(
    sql.SQL("""
    SELECT {question_columns}, {columns},
        CASE row_number() OVER (ORDER BY m.created_at DESC, m.id DESC) WHEN 1 THEN m.context END
    FROM (
        SELECT {columns}, m.context, coalesce(m.reply_to, (
            SELECT u.id FROM {messages} u
            WHERE u.{conversation_id} = %(conversation)s AND u.role = 'user'
                AND (u.created_at, u.id) < (m.created_at, m.id)
            ORDER BY u.created_at DESC, u.id DESC LIMIT 1
        )) AS question_id
        FROM {messages} m
        WHERE m.{conversation_id} = %(conversation)s AND m.role = 'assistant'
            AND (m.created_at, m.id) < (%(asked_at)s, %(question)s)
            AND m.status IN ('complete', 'interrupted') AND m.content <> ''
        ORDER BY m.created_at DESC, m.id DESC LIMIT %(limit)s
    ) m
    LEFT JOIN LATERAL (
        SELECT {question_columns} FROM {messages} q
        WHERE q.id = m.question_id AND q.{conversation_id} = %(conversation)s
            AND q.role = 'user' AND q.content <> ''
        LIMIT 1 -- a lookup by its id, also where the planner expects many answers
    ) q ON true
    ORDER BY m.created_at DESC, m.id DESC
""")
)


def execute(
    statement: Statements, conversation: Conversation, **params: Any
) -> tuple[Any, ...] | None:
    """Run the statement for the conversation's tables; its row."""
    params = {"user": conversation.user_id, "conversation": conversation.pk} | params
    results = rows(statement[KINDS[conversation.kind]], params)
    return results[0] if results else None
