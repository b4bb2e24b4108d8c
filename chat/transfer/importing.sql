-- Statements of importing.py: lines are copied into a temporary table, then inserted by sets.

-- name: remove_time_limits
-- The file may come slowly through a pipe, and a million rows are one statement.
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0

-- name: create_lines
CREATE TEMPORARY TABLE import_lines (
    line bigint, kind text, username text, conversation text, role text, content text,
    created_at timestamptz, status text, title text, body text, memory boolean,
    begun_at timestamptz, key bigint, conversation_key bigint
) ON COMMIT DROP

-- name: copy_lines
COPY import_lines FROM STDIN

-- name: create_users
-- The users that the file names; id is NULL if there is no such user. Locks nothing.
ANALYZE import_lines;
CREATE TEMPORARY TABLE import_users ON COMMIT DROP AS
    SELECT l.username, min(l.line) AS line, count(*) AS lines, u.id
    FROM import_lines l LEFT JOIN {users} u ON u.username = l.username GROUP BY l.username, u.id

-- name: find_unnormalized_users
-- Users whose name is not in the normal form (NFKC), as some programs create them. Locks nothing.
UPDATE import_users i SET id = u.id FROM {users} u
WHERE i.id IS NULL AND octet_length(u.username) > length(u.username)
    AND normalize(u.username, NFKC) = i.username

-- name: known_users
SELECT id FROM import_users WHERE id IS NOT NULL

-- name: unknown_users
SELECT line, username, (sum(lines) OVER ())::bigint
FROM import_users WHERE id IS NULL ORDER BY line LIMIT %(limit)s

-- name: unknown_names
SELECT username FROM import_users
WHERE id IS NULL AND username > %(after)s ORDER BY username LIMIT %(limit)s

-- name: find_users
UPDATE import_users i SET id = u.id FROM {users} u WHERE u.username = i.username AND i.id IS NULL

-- name: create_conversations
-- The conversations that the file names, without ids yet. Locks nothing.
CREATE TEMPORARY TABLE import_conversations ON COMMIT DROP AS
    SELECT l.kind, u.id AS user_id, l.username, l.conversation AS name,
        min(l.created_at) AS first, max(l.created_at) AS last, count(*) AS lines,
        NULL::bigint AS id, false AS is_new, max(l.conversation_key) AS key,
        max(l.title) AS title, max(l.body) AS body, bool_and(l.memory) AS memory,
        min(l.begun_at) AS begun_at
    FROM import_lines l JOIN import_users u ON u.username = l.username WHERE u.id IS NOT NULL
    GROUP BY l.kind, u.id, l.username, l.conversation

-- name: find_exported_conversations
-- Those that an export of this database named by their ids: chat/transfer/exporting.py. Another
-- conversation that has the same id, in another database, was not made in the same microsecond.
UPDATE import_conversations c SET id = p.id FROM {conversations} p
WHERE c.kind = {kind} AND p.user_id = c.user_id AND p.source IS NULL
    AND p.created_at = coalesce(c.begun_at, c.first)
    AND p.id = substring(c.name FROM '^' || {kind} || ' (\d{{1,18}})( \(\d+\))?$')::bigint
    AND NOT EXISTS (
        SELECT FROM {conversations} s WHERE s.user_id = c.user_id AND s.source = c.name)

-- name: insert_conversations
-- Locks the rows of their users against deletion.
WITH added AS (
    INSERT INTO {conversations} (user_id, source, created_at, updated_at, memory, {name_columns})
    SELECT user_id, name, coalesce(begun_at, first), greatest(begun_at, last),
        coalesce(memory, true), {names}
    FROM import_conversations WHERE kind = {kind} AND id IS NULL ORDER BY first, name
    ON CONFLICT (user_id, source) DO NOTHING RETURNING id, user_id, source
)
UPDATE import_conversations c SET id = added.id, is_new = true FROM added
WHERE c.kind = {kind} AND (c.user_id, c.name) = (added.user_id, added.source)

-- name: find_conversations
-- One that is deleted meanwhile gets no id: NOT NULL then refuses its messages, and the import
-- fails as a whole.
UPDATE import_conversations c SET id = p.id FROM {conversations} p
WHERE c.kind = {kind} AND c.id IS NULL AND p.user_id = c.user_id AND p.source = c.name

-- name: analyze_conversations
-- Before they are joined: nested loops take the square of the time, 12 s for 10,000 conversations.
ANALYZE import_conversations

-- name: count_conversations
SELECT count(*), count(DISTINCT user_id), coalesce(sum(lines), 0)::bigint
FROM import_conversations

-- name: insert_messages
-- Equal messages are numbered together, those of the database (line 0) first. If the database has
-- n of them, the lines up to place 2n are stored already. No join on the text: a thousand equal
-- lines stay cheap. Memory's triggers are deferred: retrieval/schema/bulk_insert_memories.py, which
-- importing.py calls. What is filled in before the last SELECT is record_messages of
-- imported_items.sql, or nothing. Locks the rows of their users and conversations against deletion.
WITH new AS (
    SELECT user_id, conversation_id, role, content, created_at, status, key,
        row_number() OVER (ORDER BY created_at, line) AS number
    FROM (
        SELECT *, row_number() OVER equal AS place,
            count(*) FILTER (WHERE line = 0) OVER equal AS stored
        FROM (
            SELECT l.line, c.user_id, c.id AS conversation_id, l.role, l.content, l.created_at,
                l.status, l.key
            FROM import_lines l JOIN import_conversations c
                ON (c.kind, c.username, c.name) = (l.kind, l.username, l.conversation)
            WHERE l.kind = {kind}
            UNION ALL
            SELECT 0, c.user_id, c.id, m.role, m.content, m.created_at, m.status, NULL
            FROM import_conversations c JOIN {table} m ON m.{conversation} = c.id
            WHERE c.kind = {kind} AND m.created_at BETWEEN c.first AND c.last
        ) both_sides
        WINDOW equal AS (
            PARTITION BY conversation_id, created_at, role, content COLLATE "C" ORDER BY line)
    ) placed
    WHERE line > 0 AND place > 2 * stored
), added AS (
    INSERT INTO {table} (user_id, {conversation}, role, content, created_at, status)
    SELECT user_id, conversation_id, role, content, created_at, status FROM new ORDER BY number
    RETURNING id
){record}
SELECT count(*), min(id), max(id) FROM added

-- name: check_foreign_keys
-- Now, and not after the conversations are locked: a turn in one of them would wait for it.
SET CONSTRAINTS ALL IMMEDIATE

-- name: touch_conversations
-- Locks the conversations that it changes (FOR NO KEY UPDATE).
UPDATE {conversations} p
SET created_at = least(p.created_at, coalesce(c.begun_at, c.first)),
    updated_at = greatest(p.updated_at, c.last)
FROM import_conversations c
WHERE c.kind = {kind} AND p.id = c.id
    AND (p.created_at > coalesce(c.begun_at, c.first) OR p.updated_at < c.last)

-- name: mark_import
-- When the messages from this id on came: their own times may be years old, and rag_doctor fails if
-- one waits for an hour. rate_windows is emptied of what is a day old. Locks: its row.
INSERT INTO rate_windows (name, hits)
VALUES ('import ' || {table_name} || ' ' || %(first)s, ARRAY[clock_timestamp()])
ON CONFLICT (name) DO UPDATE SET hits = excluded.hits
