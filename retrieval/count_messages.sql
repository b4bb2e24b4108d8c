-- The messages of a table that may be embedded, those of them with a vector of the current model,
-- and those set aside. The table is read once and joined with nothing; vectors are counted in the
-- index message_memories_pending. The last column: whether each vector has a row with its model. If
-- not, the counts are wrong. Locks nothing.
WITH current_model AS (SELECT id FROM embedding_models WHERE current),
messages AS (
    SELECT count(*) FILTER (WHERE {has_text}) AS total,
        count(*) FILTER (WHERE {has_text} AND m.embedding IS NOT NULL) AS embedded
    FROM {table} m
),
vectors AS (
    SELECT count(*) AS of_any_model,
        count(*) FILTER (WHERE model = (SELECT id FROM current_model)) AS of_current_model
    FROM message_memories WHERE model IS NOT NULL AND (id & 1) = {kind_bit}
),
switched_off_users AS (SELECT user_id FROM memory_switches WHERE NOT enabled),
-- Counted for each conversation and each user: in one join, the planner would expect half of all
-- messages. The user of a message: the backfill's role may not read that of a conversation.
switched_off AS (
    SELECT coalesce(sum(part.total), 0)::bigint AS total,
        coalesce(sum(part.of_current_model), 0)::bigint AS of_current_model
    FROM (
        SELECT of_conversation.* FROM {conversations} c CROSS JOIN LATERAL (
            SELECT count(*) AS total,
                count(*) FILTER (WHERE p.model = (SELECT id FROM current_model)) AS of_current_model
            FROM {table} m LEFT JOIN message_memories p ON p.id = {message_ref}
            WHERE m.{conversation} = c.id AND {has_text}
                AND m.user_id NOT IN (SELECT user_id FROM switched_off_users)
        ) of_conversation WHERE NOT c.memory
        UNION ALL
        SELECT of_user.* FROM switched_off_users s CROSS JOIN LATERAL (
            SELECT count(*) AS total,
                count(*) FILTER (WHERE p.model = (SELECT id FROM current_model)) AS of_current_model
            FROM {table} m LEFT JOIN message_memories p ON p.id = {message_ref}
            WHERE m.user_id = s.user_id AND {has_text}
        ) of_user
    ) part
),
set_aside AS (
    SELECT count(*) AS total FROM message_memories p JOIN {table} m ON m.id = p.id >> 1
    WHERE p.embedding_error IS NOT NULL AND (p.id & 1) = {kind_bit} AND m.content <> ''
        AND (p.model IS NULL OR p.model IS DISTINCT FROM (SELECT id FROM current_model))
        AND {remembered}
)
SELECT messages.total - switched_off.total,
    vectors.of_current_model - switched_off.of_current_model,
    set_aside.total,
    messages.embedded = vectors.of_any_model
FROM messages, vectors, switched_off, set_aside
