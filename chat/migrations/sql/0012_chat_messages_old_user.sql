-- Django's own index of the foreign key; chat_messages_user begins with the same column.

CREATE INDEX CONCURRENTLY IF NOT EXISTS chat_messages_user_id_cf3eadd8 ON chat_messages (user_id);
