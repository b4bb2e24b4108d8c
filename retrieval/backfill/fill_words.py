"""Give messages that came before recall's triggers, or past them, their rows in recall's table: they are found by
words from then on, and known to be pending. Words made by another text configuration are made anew."""

from collections.abc import Iterator

from retrieval import db
from retrieval.forgetting import has_stale_source
from retrieval.message_tables import MessageTable

WINDOW_ROWS = 500  # a transaction, 0.1 to 0.2 s: an edit of one of its messages waits for it
# A message that somebody changes or deletes at this moment is left out: its trigger sees to it. The others are held
# (FOR SHARE) until their rows are written, or a row could be left of a message deleted meanwhile.
# What may repeat a message that is gone is noted: no trigger was there to see that one go.
# The index's list is kept short, as by the triggers: whoever says something next would have to empty a long one.
FILL = """
WITH short AS MATERIALIZED (
    SELECT pg_catalog.set_config('gin_pending_list_limit', '64kB', true)
), seen AS MATERIALIZED (
    SELECT id FROM {table} WHERE id > %(after)s ORDER BY id LIMIT %(rows)s
), missing AS MATERIALIZED (
    SELECT m.* FROM {table} m WHERE m.id > %(after)s AND m.id <= (SELECT max(id) FROM seen) AND m.content <> ''
        AND NOT EXISTS (SELECT FROM message_memories p WHERE p.id = m.id * 2 + {number}
            AND p.search_config_id = (SELECT id FROM search_configs WHERE current))
    FOR SHARE SKIP LOCKED
), filled AS (
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars, is_question,
        search_config_id, bits, model)
    SELECT r.*, {vector}.binary_quantize(m.embedding)::bit(1536), CASE WHEN m.embedding IS NOT NULL
        THEN (SELECT max(e.id) FROM embedding_models e HAVING count(*) = 1) END
    FROM short CROSS JOIN missing m CROSS JOIN LATERAL memory_row(
        {number}, m.id, m.user_id, m.{conversation}, m.created_at, m.role, m.content) r
    ON CONFLICT (id) DO UPDATE SET terms = excluded.terms, chars = excluded.chars,
        is_question = excluded.is_question, search_config_id = excluded.search_config_id
    RETURNING 1
), noted AS (
    INSERT INTO forgotten_messages (id, user_id, message_at) SELECT m.id * 2 + {number}, m.user_id, m.created_at
    FROM missing m WHERE {lost} ON CONFLICT DO NOTHING
)
SELECT (SELECT max(id) FROM seen), (SELECT count(*) FROM filled)
"""


def fill(source: MessageTable) -> Iterator[int]:
    """Go through the table once, from its beginning, WINDOW_ROWS rows a transaction: how many each step has added.

    Lock: SHARE on the rows that are added, for their transaction. May be ended and run again. Raises sql.NoMemory.
    """
    statement = _of(source).replace("{vector}", db.vector_type().schema)
    after = 0
    while True:
        ((until, filled),) = db.execute(statement, {"after": after, "rows": WINDOW_ROWS})
        if until is None:
            return
        after = until
        yield filled


def _of(source: MessageTable) -> str:
    statement = FILL.replace("{lost}", has_stale_source(source).as_string())
    statement = statement.replace("{conversation}", source.conversation)
    return statement.replace("{table}", source.table).replace("{number}", str(source.kind_bit))
