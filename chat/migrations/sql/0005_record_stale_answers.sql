-- Records, in forgotten_messages, answers of memory that were given a message which is missing or
-- was edited later: no trigger recorded that while the schema was older. Each record makes the
-- user's next recall follow what was given that answer (docs/decisions/0013).
-- A frozen copy of "given" and "has_stale_source" in retrieval/forgetting.sql: change those.
-- One call handles a batch of ids and returns the last.
-- Lock: none on message tables, which are only read; the rows that it inserts.

WITH batch AS MATERIALIZED (
    SELECT id FROM message_memories WHERE id > %(after)s AND (id & 1) = {kind_bit}
    ORDER BY id LIMIT %(batch_rows)s
), noted AS (
    INSERT INTO forgotten_messages (id, user_id, message_at)
    SELECT batch.id, m.user_id, m.created_at
    -- LIMIT 1: a lookup by key, however large the planner believes the tables to be.
    FROM batch CROSS JOIN LATERAL (SELECT * FROM {table} WHERE id = batch.id >> 1 LIMIT 1) m
    WHERE m.role = 'assistant' AND m.content <> '' AND EXISTS (
        SELECT FROM unnest(array_remove(ARRAY[m.reply_to << 1 | {kind_bit}] || ARRAY(
            -- Any SQL may have written context: what is no id is skipped.
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
        ), NULL)) source_id LEFT JOIN LATERAL (
            SELECT created_at, edited_at FROM standalone_chat_messages
            WHERE id = CASE WHEN (source_id & 1) = 0 THEN source_id >> 1 END
            UNION ALL
            SELECT created_at, edited_at FROM chat_messages
            WHERE id = CASE WHEN (source_id & 1) = 1 THEN source_id >> 1 END
            LIMIT 1
        ) source ON true
        WHERE source.created_at IS NULL
            OR source.edited_at > coalesce(m.edited_at, m.created_at)
    )
    ON CONFLICT DO NOTHING
)
SELECT max(id) FROM batch
