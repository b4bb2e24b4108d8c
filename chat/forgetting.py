"""Which answers may hold what was to be forgotten: those given to, or with, a message that is gone or changed since.

An answer keeps the id of the message it replies to and the ids of what it was given (``reply_to``, ``context``); an
id that leads nowhere, or to a later edit, tells. What it was given may be an answer itself, and so on: to follow that
back at each recall would read all that a user ever said. So it is followed forward, once for each forgetting:
triggers note in ``forgotten_messages`` what was changed or deleted, by whomever, and the user's next recall marks
there (``spread``) every answer that it reached. docs/decisions/0013-forgetting.md
"""

from contextlib import suppress

from django.contrib.auth import get_user_model

from retrieval import sql

# LIMIT 1 in a subquery that can give one row anyway: a message is looked up by its key, whatever the planner thinks
# of the number of rows; else it reads both tables, for ten seconds where they hold 300,000.
MESSAGE = """
    SELECT 0 AS number, role, reply_to, context, created_at, edited_at FROM standalone_chat_messages
    WHERE id = CASE WHEN ({reference} & 1) = 0 THEN {reference} >> 1 END
    UNION ALL
    SELECT 1, role, reply_to, context, created_at, edited_at FROM chat_messages
    WHERE id = CASE WHEN ({reference} & 1) = 1 THEN {reference} >> 1 END
    LIMIT 1
"""
# References of what the answer ``m`` was given: the question, the memories, their companions.
GIVEN = """
    CASE WHEN m.role = 'assistant' THEN array_remove(ARRAY[m.reply_to * 2 + {number}] || ARRAY(
        SELECT ids.id::bigint * 2 + CASE one ->> 'kind' WHEN 'passage' THEN 1 ELSE 0 END
        FROM jsonb_array_elements(CASE jsonb_typeof(m.context) WHEN 'array' THEN m.context ELSE '[]' END) one
        CROSS JOIN LATERAL (SELECT one ->> 'id' AS id UNION ALL
            SELECT jsonb_array_elements_text(coalesce(one -> 'with', '[]'))) ids
    ), NULL) END
"""
LOST = """
    EXISTS (SELECT FROM unnest({given}) source LEFT JOIN LATERAL ({message}) s ON true
        WHERE s.created_at IS NULL OR s.edited_at > coalesce(m.edited_at, m.created_at) {or_marked})
"""
MARKED = "EXISTS (SELECT FROM forgotten_messages f WHERE f.spread AND f.id = {reference})"


def lost(number: int | str, *, or_marked: str = "") -> str:
    """SQL: whether the message ``m`` of the source with this number was given what is gone, or changed since."""
    given = GIVEN.replace("{number}", str(number))
    condition = LOST.replace("{given}", given).replace("{message}", MESSAGE.replace("{reference}", "source"))
    return condition.replace("{or_marked}", or_marked)


# A last row, NULL, tells that something was forgotten whose answers are not marked yet.
FORGOTTEN = f"""
    SELECT root FROM unnest(%(references)s::bigint[]) root
    CROSS JOIN LATERAL ({MESSAGE.replace("{reference}", "root")}) m
    WHERE {MARKED.replace("{reference}", "root")}
        OR {lost("m.number", or_marked="OR " + MARKED.replace("{reference}", "source"))}
    UNION ALL
    SELECT NULL WHERE EXISTS (SELECT FROM forgotten_messages WHERE user_id = %(user)s AND NOT spread)
"""  # noqa: S608 # of our own constants
# Only answers since the earliest of what is forgotten can have been given it. An answer that is being given has no
# row in message_memories yet: when it has one, what it was given is marked. Locks: the rows noted, against a second
# recall of the same user, which waits and then finds them marked.
SPREAD = f"""
    WITH RECURSIVE gone AS (
        DELETE FROM forgotten_messages WHERE user_id = %(user)s AND NOT spread RETURNING id, said_at, forgotten_at
    ), edge AS MATERIALIZED (
        SELECT p.id AS answer, source, coalesce(m.edited_at, m.created_at) AS given_at
        FROM message_memories p CROSS JOIN LATERAL ({MESSAGE.replace("{reference}", "p.id")}) m
        CROSS JOIN LATERAL unnest({GIVEN.replace("{number}", "m.number")}) source
        WHERE p.user_id = %(user)s AND NOT p.by_user AND p.created_at >= (SELECT min(said_at) FROM gone)
    ), reached AS (
        SELECT edge.answer FROM edge JOIN gone ON gone.id = edge.source AND edge.given_at < gone.forgotten_at
        UNION
        SELECT edge.answer FROM edge JOIN reached ON reached.answer = edge.source
    )
    INSERT INTO forgotten_messages (id, user_id, said_at, spread)
    SELECT p.id, p.user_id, p.created_at, true FROM reached JOIN message_memories p ON p.id = reached.answer
    ON CONFLICT DO NOTHING
"""  # noqa: S608 # of our own constants
# Who is gone recalls no more.
CLEAR = "DELETE FROM forgotten_messages f WHERE NOT EXISTS (SELECT FROM {users} u WHERE u.id = f.user_id)"
ERASE = "DELETE FROM forgotten_messages WHERE user_id = %(user)s"


def forgotten(user_id: int, references: list[int]) -> set[int]:
    """Those of the user's messages that must not be recalled any more. One statement; three after a forgetting.

    ``references`` are of ``Source.reference``. Raises sql.NoMemory.
    """
    if not references:
        return set()
    params = {"user": user_id, "references": references}
    found = {row[0] for row in sql.run(FORGOTTEN, params)}
    if None in found:
        sql.run(SPREAD, {"user": user_id})
        found = {row[0] for row in sql.run(FORGOTTEN, params)}
    return found - {None}


def erase(user_id: int) -> int:
    """Forget what of the user was forgotten; how many rows. One statement. Raises sql.NoMemory."""
    return int(sql.run(ERASE, {"user": user_id})[0][0])


def clear() -> None:
    """Drop what is noted of users who are gone. One statement."""
    with suppress(sql.NoMemory):
        sql.run(CLEAR.replace("{users}", get_user_model()._meta.db_table), {})
