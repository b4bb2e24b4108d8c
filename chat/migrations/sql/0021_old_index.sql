-- As 0015_client_chats made it, for the way back.

CREATE INDEX CONCURRENTLY IF NOT EXISTS standalone_messages_digest ON standalone_chat_messages (
    user_id,
    substr(sha256(decode(replace(btrim(replace(replace(content, E'\r\n', E'\n'), E'\r', E'\n'),
        E' \t\n\v\f'), E'\\', E'\\\\'), 'escape')), 1, 16),
    id
) WHERE content <> '';
