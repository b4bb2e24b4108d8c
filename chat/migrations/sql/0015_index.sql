-- Finds a user's messages by a digest of their text: chat/openai_api/outlines.py. Built-in
-- functions alone, so that no role needs a right on one of ours to write a message. Every writer's
-- messages are in it, and those from before.

CREATE INDEX CONCURRENTLY IF NOT EXISTS standalone_messages_digest ON standalone_chat_messages (
    user_id,
    substr(sha256(decode(replace(btrim(replace(replace(content, E'\r\n', E'\n'), E'\r', E'\n'),
        E' \t\n\v\f'), E'\\', E'\\\\'), 'escape')), 1, 16),
    id
) WHERE content <> '';
