-- Statements of imported_items.py: what came with which import. For the temporary tables:
-- importing.sql.

-- name: leave_out_known
-- Messages that an earlier import of the same account added, though changed or deleted since.
DELETE FROM import_lines l USING import_users u, imported_items i
WHERE u.username = l.username AND i.user_id = u.id AND i.key = l.key

-- name: leave_out_repeated
-- Messages that the file has twice, as an archive with two copies of a conversation.
DELETE FROM import_lines l USING (
    SELECT username, key, min(line) AS first FROM import_lines GROUP BY username, key
    HAVING count(*) > 1
) repeated
WHERE (l.username, l.key) = (repeated.username, repeated.key) AND l.line > repeated.first

-- name: leave_out_deleted
-- New messages of conversations that an earlier import added and that are deleted since.
DELETE FROM import_lines l USING import_users u, imported_items i
WHERE u.username = l.username AND i.user_id = u.id AND i.key = l.conversation_key
    AND NOT EXISTS (SELECT FROM {conversations} c WHERE c.id = i.ref >> 1)

-- name: record_messages
-- Part of insert_messages. Ids are given in the order of the numbers; others may lie between.
, numbered AS (
    SELECT id, row_number() OVER (ORDER BY id) AS number FROM added
), recorded AS (
    INSERT INTO imported_items (import_id, user_id, ref, is_conversation, key)
    SELECT %(import)s, new.user_id, numbered.id * 2 + {kind_bit}, false, new.key
    FROM numbered JOIN new USING (number)
)

-- name: record_conversations
INSERT INTO imported_items (import_id, user_id, ref, is_conversation, key)
SELECT %(import)s, user_id, id * 2 + {kind_bit}, true, key
FROM import_conversations WHERE kind = {kind} AND is_new

-- name: new_texts
-- The texts to embed; equal ones are bought once. Locks nothing.
SELECT DISTINCT content COLLATE "C" FROM import_lines

-- name: count_lines
SELECT count(DISTINCT conversation), count(*) FROM import_lines

-- name: delete_messages
-- Locks the deleted rows.
DELETE FROM {table} m USING imported_items i
WHERE i.import_id = %(import)s AND NOT i.is_conversation AND (i.ref & 1) = {kind_bit}
    AND m.id = i.ref >> 1 AND m.user_id = i.user_id
RETURNING m.{conversation}

-- name: empty_conversations
-- Of those that messages were deleted from, or that the import added: those without messages that
-- no other import has added. Locks nothing.
SELECT c.id FROM {conversations} c
LEFT JOIN imported_items i ON i.ref = c.id * 2 + {kind_bit} AND i.is_conversation
    AND i.user_id = c.user_id
WHERE c.user_id = %(user)s AND (c.id = ANY (%(ids)s) OR i.import_id = %(import)s)
    AND coalesce(i.import_id, %(import)s) = %(import)s AND c.source IS NOT NULL
    AND NOT EXISTS (SELECT FROM {table} m WHERE m.{conversation} = c.id)
