-- Fragments and statements of forgetting.py. "m" is a message, "ref" its packed id: MessageTable.
--
-- forgotten_messages holds two kinds of rows:
-- * NOT tainted, pending: a message that was edited or deleted, or an answer with a stale source
--   that the backfill came upon. It stays until its taint is propagated. message_at is its
--   created_at: answers from before that time cannot have been given it.
-- * tainted, a mark: an answer that was reached. message_at is when the marked text was written: a
--   regenerated text is later, and so not marked.

-- name: sources
-- The frozen chat/migrations/sql/0005_record_stale_answers.sql calls this fragment "given".
-- The refs of the messages that the answer m was given: its question, the memories with their
-- companions, and the history, which is of its own conversation. Any SQL may have written
-- "context": entries that name no message are skipped, they must not fail every recall. "<< 1" and
-- not "* 2": a huge id must not be an error either.
CASE WHEN m.role = 'assistant' THEN array_remove(ARRAY[m.reply_to << 1 | {kind_bit}] || ARRAY(
    SELECT CASE WHEN ids.id ~ '^[0-9]{{1,18}}$' THEN ids.id::bigint << 1 | ids.kind_bit END
    FROM jsonb_array_elements(
        CASE jsonb_typeof(m.context) WHEN 'array' THEN m.context ELSE '[]' END) entry
    CROSS JOIN LATERAL (
        SELECT CASE entry ->> 'kind' WHEN 'passage' THEN 1 ELSE 0 END AS kind_bit) kind
    CROSS JOIN LATERAL (
        SELECT entry ->> 'id' AS id, kind.kind_bit
        UNION ALL SELECT jsonb_array_elements_text(CASE jsonb_typeof(entry -> 'with')
            WHEN 'array' THEN entry -> 'with' ELSE '[]' END), kind.kind_bit
        UNION ALL SELECT jsonb_array_elements_text(CASE jsonb_typeof(entry -> 'history')
            WHEN 'array' THEN entry -> 'history' ELSE '[]' END), {kind_bit}
    ) ids
), NULL) END

-- name: has_stale_source
-- Whether m was given a message that is missing, was edited after m was written, or is marked.
EXISTS (SELECT FROM unnest({sources}) source LEFT JOIN LATERAL ({source}) s ON true
    WHERE s.created_at IS NULL OR s.edited_at > coalesce(m.edited_at, m.created_at)
        OR {source_is_marked})

-- name: is_marked
-- Whether the message is marked. A mark is of one text: a text that was written later has none.
EXISTS (SELECT FROM forgotten_messages f WHERE f.tainted AND f.id = {ref}
    AND f.message_at >= coalesce({message}.edited_at, {message}.created_at))

-- name: tainted_on_older_schema
-- Which of these refs are tainted: marked, or given something that is missing, edited later or
-- marked, as the function tainted_by_1 in schema/current_recall.sql decides. And whether the user
-- has an edit or a deletion that is not propagated yet. Locks nothing.
SELECT ARRAY(
    SELECT ref FROM unnest(%(refs)s::bigint[]) ref CROSS JOIN LATERAL ({message}) m
    WHERE {is_marked} OR {has_stale_source}
), EXISTS (SELECT FROM forgotten_messages WHERE user_id = %(user)s AND NOT tainted)

-- name: forgotten_and_answers
-- (ref, time, sources, version), rows of two kinds:
-- * with a version: a message that was edited or deleted since the last time. Its time is that of
--   the edit, NULL after a deletion. Another edit or a deletion changes its version.
-- * without: an answer of the user, not older than the earliest of those messages. Its time is when
--   its text was written.
-- Locks nothing.
WITH forgotten AS (
    SELECT id, message_at, forgotten_at FROM forgotten_messages
    WHERE user_id = %(user)s AND NOT tainted
)
SELECT id, nullif(forgotten_at, 'infinity'), NULL::bigint[], forgotten_at::text FROM forgotten
UNION ALL
-- A regenerated answer keeps its old created_at. One that was stored at its first word has the time
-- of its prompt as edited_at, which is before its question's.
SELECT answer.ref, coalesce(m.edited_at, m.created_at), {sources}, NULL
FROM (
    SELECT id AS ref FROM message_memories WHERE user_id = %(user)s AND NOT by_user
    UNION ALL
    -- An answer that is still being generated has no row in message_memories yet.
    SELECT message_id << 1 | (passage_id IS NOT NULL)::int
    FROM running_answers WHERE user_id = %(user)s
) answer CROSS JOIN LATERAL ({message}) m
WHERE m.role = 'assistant'
    AND greatest(m.edited_at, m.created_at) >= (SELECT min(message_at) FROM forgotten)

-- name: one_at_a_time
-- Two recalls of a user that delete the same rows in another order would wait for each other. Until
-- the end of the transaction; users that share a number share the lock.
SELECT pg_catalog.pg_advisory_xact_lock(%(lock)s, (%(user)s %% 2147483647)::int)

-- name: delete_propagated
-- Those of these versions that are still the latest; a later one is propagated next. And two kinds
-- of marks: of answers that were themselves edited or deleted (memory_update has deleted them
-- already; memory_delete leaves them, to avoid deadlocks), and of earlier texts of the answers that
-- are marked now.
-- Locks the rows that it deletes, until the marks are committed: an edit of these messages waits.
WITH propagated AS (
    DELETE FROM forgotten_messages f WHERE f.user_id = %(user)s AND NOT f.tainted AND EXISTS (
        SELECT FROM unnest(%(forgotten)s::bigint[], %(versions)s::text[]) p (ref, version)
        WHERE p.ref = f.id AND p.version::timestamptz = f.forgotten_at)
    RETURNING f.id
)
DELETE FROM forgotten_messages f USING (
    SELECT id, NULL::timestamptz FROM propagated
    UNION ALL SELECT * FROM unnest(%(refs)s::bigint[], %(written_at)s::timestamptz[])
) old (id, before)
WHERE f.user_id = %(user)s AND f.tainted AND f.id = old.id
    AND (old.before IS NULL OR f.message_at < old.before)

-- name: mark
-- Locks the rows that it inserts, in the order of ids as every other recall does: no deadlock.
INSERT INTO forgotten_messages (id, user_id, message_at, tainted)
SELECT id, %(user)s, written_at, true
FROM unnest(%(refs)s::bigint[], %(written_at)s::timestamptz[]) m (id, written_at)
ORDER BY id ON CONFLICT DO NOTHING
