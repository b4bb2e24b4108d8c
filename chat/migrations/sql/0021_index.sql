-- Finds a user's messages by a digest of their text: chat/openai_api/outlines.py. Built-in
-- functions alone, so that no role needs a right on one of ours to write a message. A vertical tab
-- is \x0B: PostgreSQL 16 reads E'\v' as the letter v.

CREATE INDEX CONCURRENTLY IF NOT EXISTS standalone_messages_text ON standalone_chat_messages (
    user_id,
    substr(sha256(decode(replace(btrim(replace(replace(content, E'\r\n', E'\n'), E'\r', E'\n'),
        E' \t\n\x0B\f'), E'\\', E'\\\\'), 'escape')), 1, 16),
    id
) WHERE content <> '';
