-- A user's messages, newest last: the admin's list of a user's messages, and erasure.

CREATE INDEX CONCURRENTLY IF NOT EXISTS chat_messages_user ON chat_messages (user_id, id);
