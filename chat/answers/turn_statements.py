"""The SQL of turns, composed once for each of the two message tables."""

from typing import Any, cast

from django.contrib.auth import get_user_model
from django.db import connection
from psycopg import sql

from chat.models import ChatMessage, Conversation, Message, StandaloneChatMessage


def _for_both_tables(statement: sql.SQL) -> dict[type[Message], str]:
    """The statement composed for the two message tables, once."""
    return {
        model: statement.format(
            messages=sql.Identifier(model._meta.db_table),
            conversations=sql.Identifier(model.conversation.field.related_model._meta.db_table),
            conversation_id=sql.Identifier(model.conversation.field.column),
        ).as_string()
        for model in (ChatMessage, StandaloneChatMessage)
    }


# Locks: the user's row. The ORM's select_for_update() does the same in 0.7 ms more for every turn.
LOCK_USER = (
    sql.SQL("SELECT FROM {users} WHERE id = %(user)s FOR NO KEY UPDATE")
    .format(users=sql.Identifier(get_user_model()._meta.db_table))
    .as_string()
)
# Only the process that deletes the running_answers row may write the answer. Locks: both rows.
FINISH = _for_both_tables(
    sql.SQL("""
    WITH claimed AS (DELETE FROM running_answers WHERE id = %(running_id)s RETURNING id)
    UPDATE {messages}
    SET content = %(content)s, status = %(status)s, error = %(error)s, truncated = %(truncated)s
    WHERE id = %(answer_id)s AND EXISTS (SELECT FROM claimed)
""")
)
# Sets the conversation's time and returns the conversations of the user's running answers.
# Locks: the conversation's row.
TOUCH = _for_both_tables(
    sql.SQL("""
    UPDATE {conversations} SET updated_at = %(now)s WHERE id = %(conversation)s
    RETURNING ARRAY(SELECT {conversation_id} FROM running_answers WHERE user_id = %(user)s)
""")
)
# Locks: the new rows only.
ADD_TURN = _for_both_tables(
    sql.SQL("""
    WITH question AS (
        INSERT INTO {messages} (user_id, {conversation_id}, role, content, created_at)
        VALUES (%(user)s, %(conversation)s, 'user', %(content)s, %(now)s) RETURNING id
    ), answer AS (
        INSERT INTO {messages}
            (user_id, {conversation_id}, role, content, created_at, status, reply_to)
        SELECT %(user)s, %(conversation)s, 'assistant', '', %(now)s, 'streaming', id
        FROM question RETURNING id, reply_to
    )
    INSERT INTO running_answers (user_id, {conversation_id}, message_id)
    SELECT %(user)s, %(conversation)s, id FROM answer
    RETURNING id, message_id, (SELECT reply_to FROM answer)
""")
)


def execute(
    statement: dict[type[Message], str], conversation: Conversation, **params: Any
) -> tuple[Any, ...] | None:
    """Run the statement for the conversation's tables; its row."""
    params = {"user": conversation.user_id, "conversation": conversation.pk} | params
    with connection.cursor() as cursor:
        cursor.execute(statement[conversation.messages.model], params)
        return cast("tuple[Any, ...] | None", cursor.fetchone())
