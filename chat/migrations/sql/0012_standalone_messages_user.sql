-- A user's messages, newest last: the admin's list of a user's messages, and erasure.

CREATE INDEX CONCURRENTLY IF NOT EXISTS standalone_messages_user
    ON standalone_chat_messages (user_id, id);
