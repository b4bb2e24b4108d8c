-- All messages by time, which is not the order of their ids: an import brings old messages.

CREATE INDEX CONCURRENTLY IF NOT EXISTS standalone_messages_created
    ON standalone_chat_messages (created_at, id);
