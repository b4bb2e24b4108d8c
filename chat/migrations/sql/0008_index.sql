-- A user's messages in the order of their conversations and times, with all that recall reads.

CREATE INDEX CONCURRENTLY IF NOT EXISTS message_memories_recall ON message_memories
    (user_id, conversation, created_at, id) INCLUDE (bits, model, by_user, chars, is_question);
