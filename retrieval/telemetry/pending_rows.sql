-- How many messages are pending, by indexes: rows without a vector of the current model, without
-- those that are set aside, marked as tainted or switched off. Reads message_memories_pending,
-- message_memories_failed, the conversations, and message_memories_recall for those switched off.
-- A row that is left out for two reasons is subtracted twice. Locks nothing.
SELECT greatest(0,
    (SELECT count(*) FROM message_memories WHERE model IS NULL)
    + (SELECT count(*) FROM message_memories
        WHERE model IN (SELECT id FROM embedding_models WHERE NOT current))
    - (SELECT count(*) FROM message_memories p WHERE p.embedding_error IS NOT NULL AND {no_vector})
    - (SELECT count(*) FROM forgotten_messages f JOIN message_memories p ON p.id = f.id
        WHERE f.tainted AND {no_vector})
    - (SELECT count(*) FROM memory_switches s JOIN message_memories p ON p.user_id = s.user_id
        WHERE NOT s.enabled AND {no_vector})
    - (SELECT coalesce(sum(of_conversation.rows), 0) FROM ({switched_off}) c CROSS JOIN LATERAL (
        SELECT count(*) AS rows FROM message_memories p
        WHERE p.user_id = c.user_id AND p.conversation = c.ref AND {no_vector}
    ) of_conversation))::bigint
