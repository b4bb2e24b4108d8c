-- The few answers that did not come to their end: the admin's list of a status.

CREATE INDEX CONCURRENTLY IF NOT EXISTS standalone_messages_ended
    ON standalone_chat_messages (status, id)
    WHERE status IN ('failed', 'interrupted');
