-- Inserts or updates memory's rows of the next messages after an id, up to another. Returns
-- the last id that was looked at and the number of rows written. Locks the messages FOR SHARE until
-- the end of the transaction: else a row could be left of a message that is deleted meanwhile.

-- Keeps the index's pending list short, as the triggers do: the user's next message would have to
-- empty a long one.
WITH short AS MATERIALIZED (
    SELECT pg_catalog.set_config('gin_pending_list_limit', '64kB', true)
),
batch AS MATERIALIZED (
    SELECT id FROM {table} WHERE id > %(after)s AND id <= %(table_end)s ORDER BY id LIMIT %(rows)s
),
-- Messages without a row of the current search configuration. SKIP LOCKED: the trigger writes the
-- row of a message that another transaction is changing.
missing AS MATERIALIZED (
    SELECT m.* FROM {table} m
    WHERE m.id > %(after)s AND m.id <= (SELECT max(id) FROM batch) AND m.content <> ''
        AND NOT {is_copy}
        AND NOT EXISTS (SELECT FROM message_memories p WHERE p.id = m.id * 2 + {kind_bit}
            AND p.search_config_id = (SELECT id FROM search_configs WHERE current))
    FOR SHARE SKIP LOCKED
),
filled AS (
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question, search_config_id, bits, model)
    SELECT r.*, {vector}.binary_quantize(m.embedding)::bit(1536),
        -- Which model made an earlier embedding is known only if there has been one model.
        CASE WHEN m.embedding IS NOT NULL
            THEN (SELECT max(e.id) FROM embedding_models e HAVING count(*) = 1) END
    FROM short CROSS JOIN missing m CROSS JOIN LATERAL memory_row({kind_bit}, m.id, m.user_id,
        m.{conversation}, m.created_at, m.role, m.content) r
    ON CONFLICT (id) DO UPDATE SET terms = excluded.terms, chars = excluded.chars,
        is_question = excluded.is_question, search_config_id = excluded.search_config_id
    RETURNING 1
),
-- Answers that were given a message which is missing or edited: no trigger could record that.
forgotten AS (
    INSERT INTO forgotten_messages (id, user_id, message_at)
    SELECT m.id * 2 + {kind_bit}, m.user_id, m.created_at
    FROM missing m WHERE {has_stale_source} ON CONFLICT DO NOTHING
)
SELECT (SELECT max(id) FROM batch), (SELECT count(*) FROM filled)
