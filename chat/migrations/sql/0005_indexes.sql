-- What backfill_embeddings reads: rows without a vector and rows of another model, each in the
-- order of ids, and rows that were set aside.
-- Lock: SHARE UPDATE EXCLUSIVE on message_memories: recall and writes go on.

CREATE INDEX CONCURRENTLY IF NOT EXISTS message_memories_pending ON message_memories
    (model, (id & 1), id);

CREATE INDEX CONCURRENTLY IF NOT EXISTS message_memories_failed ON message_memories
    (id) WHERE embedding_error IS NOT NULL;
