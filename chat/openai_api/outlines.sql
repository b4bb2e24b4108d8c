-- The newest chats of the user in which a message has this digest: at most %(max_chats)s of the
-- newest %(max_messages)s messages. Reads the index standalone_messages_text. Locks nothing.

-- name: chats_with
SELECT array_agg(chat_id ORDER BY newest DESC) FROM (
    SELECT chat_id, max(id) AS newest FROM (
        SELECT chat_id, id FROM standalone_chat_messages m
        WHERE user_id = %(user)s AND content <> '' AND {digest} = %(digest)s
        ORDER BY id DESC LIMIT %(max_messages)s
    ) equal GROUP BY chat_id ORDER BY newest DESC LIMIT %(max_chats)s
) newest_chats

-- The latest messages of each chat, oldest first: ids, digests one after the other, and a letter
-- for each: u of the user's; a an answer; b an answer that broke off; f one without text, or that
-- is being given. Locks nothing.

-- name: outlines
SELECT c.id, latest.ids, latest.kinds, latest.digests
FROM unnest(%(chats)s::bigint[]) WITH ORDINALITY wanted (id, place)
JOIN standalone_chats c ON c.id = wanted.id AND c.user_id = %(user)s
CROSS JOIN LATERAL (
    SELECT array_agg(id ORDER BY created_at, id) AS ids,
        string_agg(CASE WHEN role = 'user' THEN 'u' WHEN content = '' OR status = 'streaming'
            OR status = 'failed' THEN 'f' WHEN error IS NOT NULL THEN 'b' ELSE 'a' END, ''
            ORDER BY created_at, id) AS kinds,
        string_agg({digest}, ''::bytea ORDER BY created_at, id) AS digests
    FROM (
        SELECT id, role, content, status, error, created_at FROM standalone_chat_messages
        WHERE chat_id = c.id ORDER BY created_at DESC, id DESC LIMIT %(max_rows)s
    ) m
) latest ORDER BY wanted.place
