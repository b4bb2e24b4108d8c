-- As 0005_memory made it, for the way back.

CREATE INDEX CONCURRENTLY IF NOT EXISTS message_memories_bits ON message_memories (user_id)
    INCLUDE (id, bits, model, conversation, created_at, by_user) WHERE bits IS NOT NULL;
