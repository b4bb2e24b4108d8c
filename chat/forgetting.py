"""Which answers may hold what was to be forgotten: those given to, or with, a message that is gone or changed since.

An answer keeps the id of the message it replies to and the ids of what it was given (``reply_to``, ``context``); an
id that leads nowhere, or to a later edit, tells. What it was given may be an answer itself, so the question goes on
from there. Only columns of the first migration: this holds whoever deleted, by whatever way.
"""

from django.db import connection

FORGOTTEN = """
WITH RECURSIVE message AS NOT MATERIALIZED (
    SELECT 0 AS number, id, role, reply_to, context, created_at, edited_at FROM standalone_chat_messages
    UNION ALL
    SELECT 1, id, role, reply_to, context, created_at, edited_at FROM chat_messages
), given AS (
    SELECT asked.reference AS root, source.number, source.id, coalesce(m.edited_at, m.created_at) AS at
    FROM unnest(%(references)s::bigint[]) asked(reference)
    JOIN message m ON m.number = (asked.reference & 1) AND m.id = asked.reference >> 1 AND m.role = 'assistant'
    CROSS JOIN LATERAL ({sources}) source
    UNION
    SELECT given.root, source.number, source.id, coalesce(m.edited_at, m.created_at)
    FROM given JOIN message m ON m.number = given.number AND m.id = given.id AND m.role = 'assistant'
    CROSS JOIN LATERAL ({sources}) source
)
SELECT DISTINCT given.root FROM given LEFT JOIN message m ON m.number = given.number AND m.id = given.id
WHERE m.id IS NULL OR m.edited_at > given.at
"""
SOURCES = """
    SELECT m.number, m.reply_to AS id WHERE m.reply_to IS NOT NULL
    UNION ALL
    SELECT CASE one ->> 'kind' WHEN 'passage' THEN 1 ELSE 0 END, ids.id::bigint
    FROM jsonb_array_elements(CASE jsonb_typeof(m.context) WHEN 'array' THEN m.context ELSE '[]' END) one
    CROSS JOIN LATERAL (SELECT one ->> 'id' AS id UNION ALL
        SELECT jsonb_array_elements_text(coalesce(one -> 'with', '[]'))) ids
"""


def forgotten(references: list[int]) -> set[int]:
    """Those of the messages (references of ``Source.reference``) that must not be recalled any more. One query."""
    if not references:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(FORGOTTEN.replace("{sources}", SOURCES), {"references": references})
        return {row[0] for row in cursor.fetchall()}
