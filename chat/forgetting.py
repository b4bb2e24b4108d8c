"""Which answers may hold what was to be forgotten: those given to, or with, a message that is gone or changed since.

An answer keeps the id of the message it replies to and the ids of what it was given (``reply_to``, ``context``); an
id that leads nowhere, or to a later edit, tells. What it was given may be an answer itself, and so on: to follow that
back at each recall would read all that a user ever said. So it is followed forward, once for each forgetting:
triggers note in ``forgotten_messages`` what was changed or deleted, by whomever, and the user's next recall marks
there (``tainted``) every answer that it reached. docs/decisions/0013-forgetting.md
"""

from collections import defaultdict
from contextlib import suppress
from datetime import datetime

from django.contrib.auth import get_user_model
from django.db import transaction

from retrieval import db

# A message is looked up by its key, in a subquery that depends on what asks and, with a LIMIT, cannot become a join:
# joined to what asked for five answers, both tables were read as a whole, ten seconds with 300,000 messages.
MESSAGE = """
    SELECT 0 AS number, role, reply_to, context, created_at, edited_at FROM standalone_chat_messages
    WHERE id = CASE WHEN ({reference} & 1) = 0 THEN {reference} >> 1 END
    UNION ALL
    SELECT 1, role, reply_to, context, created_at, edited_at FROM chat_messages
    WHERE id = CASE WHEN ({reference} & 1) = 1 THEN {reference} >> 1 END
    LIMIT 1
"""
# References of what the answer ``m`` was given: the question, the memories, their companions, what was said before in
# its conversation. Whoever writes SQL may have left anything in ``context``: what names no message is passed over, it
# must not fail every recall. The shift drops what does not fit where a multiplication would fail.
GIVEN = """
    CASE WHEN m.role = 'assistant' THEN array_remove(ARRAY[m.reply_to << 1 | {number}] || ARRAY(
        SELECT CASE WHEN ids.id ~ '^[0-9]{1,18}$' THEN ids.id::bigint << 1 | ids.number END
        FROM jsonb_array_elements(CASE jsonb_typeof(m.context) WHEN 'array' THEN m.context ELSE '[]' END) one
        CROSS JOIN LATERAL (SELECT CASE one ->> 'kind' WHEN 'passage' THEN 1 ELSE 0 END AS number) kind
        CROSS JOIN LATERAL (
            SELECT one ->> 'id' AS id, kind.number
            UNION ALL SELECT jsonb_array_elements_text(
                CASE jsonb_typeof(one -> 'with') WHEN 'array' THEN one -> 'with' ELSE '[]' END), kind.number
            UNION ALL SELECT jsonb_array_elements_text(
                CASE jsonb_typeof(one -> 'history') WHEN 'array' THEN one -> 'history' ELSE '[]' END), {number}
        ) ids
    ), NULL) END
"""
LOST = """
    EXISTS (SELECT FROM unnest({given}) source LEFT JOIN LATERAL ({message}) s ON true
        WHERE s.created_at IS NULL OR s.edited_at > coalesce(m.edited_at, m.created_at) {or_marked})
"""
# A mark is of one text of the message: a text that was given later is another.
MARKED = """
    EXISTS (SELECT FROM forgotten_messages f
        WHERE f.tainted AND f.id = {reference} AND f.message_at >= coalesce({m}.edited_at, {m}.created_at))
"""


def lost(number: int | str, *, or_marked: str = "") -> str:
    """SQL: whether the message ``m`` of the source with this number was given what is gone, or changed since."""
    given = GIVEN.replace("{number}", str(number))
    condition = LOST.replace("{given}", given).replace(
        "{message}", MESSAGE.replace("{reference}", "source")
    )
    return condition.replace("{or_marked}", or_marked)


# A last row, NULL, tells that something was forgotten whose answers are not marked yet.
FORGOTTEN = f"""
    SELECT root FROM unnest(%(references)s::bigint[]) root
    CROSS JOIN LATERAL ({MESSAGE.replace("{reference}", "root")}) m
    WHERE {MARKED.replace("{reference}", "root").replace("{m}", "m")}
        OR {lost("m.number", or_marked="OR " + MARKED.replace("{reference}", "source").replace("{m}", "s"))}
    UNION ALL
    SELECT NULL WHERE EXISTS (SELECT FROM forgotten_messages WHERE user_id = %(user)s AND NOT tainted)
"""  # noqa: S608 # of our own constants
# What was forgotten (id, when, NULL; for good: NULL, NULL), and what each answer since the earliest of it was given
# (id, when, references). An answer made anew may be older than what it was given. One that is being given has no row
# in message_memories yet, and what it was given may be changed without a trace in that message. Locks: the rows
# noted, against a second recall of the same user, which waits and then finds them marked.
EDGES = f"""
    WITH gone AS (
        DELETE FROM forgotten_messages WHERE user_id = %(user)s AND NOT tainted RETURNING id, message_at, forgotten_at
    ), unmarked AS (
        DELETE FROM forgotten_messages f USING gone WHERE f.tainted AND f.id = gone.id
    )
    SELECT id, nullif(forgotten_at, 'infinity'), NULL::bigint[] FROM gone
    UNION ALL
    SELECT p.id, coalesce(m.edited_at, m.created_at), {GIVEN.replace("{number}", "m.number")}
    FROM (
        SELECT id FROM message_memories WHERE user_id = %(user)s AND NOT by_user
        UNION ALL
        SELECT message_id << 1 | (passage_id IS NOT NULL)::int FROM running_answers WHERE user_id = %(user)s
    ) p CROSS JOIN LATERAL ({MESSAGE.replace("{reference}", "p.id")}) m
    WHERE m.role = 'assistant'
        AND coalesce(m.edited_at, m.created_at) >= (SELECT min(message_at) FROM gone)
"""  # noqa: S608 # of our own constants
# In the order of ids, as every other recall's: two at once wait for each other once.
MARK = """
    INSERT INTO forgotten_messages (id, user_id, message_at, tainted)
    SELECT id, %(user)s, given_at, true FROM unnest(%(ids)s::bigint[], %(given_at)s::timestamptz[]) m (id, given_at)
    ORDER BY id ON CONFLICT DO NOTHING
"""
# Who is gone recalls no more.
CLEAR = "DELETE FROM forgotten_messages f WHERE NOT EXISTS (SELECT FROM {users} u WHERE u.id = f.user_id)"
ERASE = "DELETE FROM forgotten_messages WHERE user_id = %(user)s"


def tainted(user_id: int, references: list[int]) -> set[int]:
    """Those of the user's messages that must not be recalled any more. One statement; four after a forgetting.

    ``references`` are of ``Source.reference``. Raises sql.NoMemory.
    """
    if not references:
        return set()
    params = {"user": user_id, "references": references}
    found = {row[0] for row in db.execute(FORGOTTEN, params)}
    if None in found:
        propagate_taint(user_id)
        found = {row[0] for row in db.execute(FORGOTTEN, params)}
    return found - {None}


def propagate_taint(user_id: int) -> None:
    """Mark what the user's forgettings have reached. One transaction of two statements.

    The walk is Python's: PostgreSQL's recursion reads every edge again for each step, 20 s for a chain of 10,000.
    """
    with transaction.atomic():
        rows = db.execute(EDGES, {"user": user_id})
        reached = _reached(
            {pk: at for pk, at, given in rows if given is None},
            {pk: (at, given) for pk, at, given in rows if given is not None},
        )
        db.execute(
            MARK, {"user": user_id, "ids": list(reached), "given_at": list(reached.values())}
        )


def _reached(
    gone: dict[int, datetime | None], answers: dict[int, tuple[datetime, list[int]]]
) -> dict[int, datetime]:
    """The answers that were given what is gone, or such an answer (reference → when), each looked at once."""
    told = defaultdict(list)
    for answer, (_, given) in answers.items():
        for source in given:
            told[source].append(answer)
    waiting = [
        one
        for source, at in gone.items()
        for one in told[source]
        if at is None or answers[one][0] < at
    ]
    reached: dict[int, datetime] = {}
    while waiting:
        answer = waiting.pop()
        if answer not in reached:
            reached[answer] = answers[answer][0]
            waiting += told[answer]
    return reached


def erase(user_id: int) -> int:
    """Forget what of the user was forgotten; how many rows. One statement. Raises sql.NoMemory."""
    return int(db.execute(ERASE, {"user": user_id})[0][0])


def clear() -> None:
    """Drop what is noted of users who are gone. One statement."""
    with suppress(db.NoMemory):
        db.execute(CLEAR.replace("{users}", get_user_model()._meta.db_table), {})
