-- Each statement is composed for both kinds of conversations. {conversation}: the column of
-- {messages}, running_answers and kept_conversations that names one; {expired}: the last part.

-- name: find
-- In the order of their ids: reads the primary key. Locks nothing.
SELECT c.id FROM {conversations} c WHERE c.id > %(after)s AND {expired}
ORDER BY c.id LIMIT %(limit)s

-- name: count
-- How many there are, and their messages. Locks nothing.
SELECT count(*), coalesce(sum((
    SELECT count(*) FROM {messages} m WHERE m.{conversation} = c.id)), 0)::bigint
FROM {conversations} c WHERE {expired}

-- name: lock
-- Locks: these conversations, so that no turn begins in them, no message is added, and none is kept
-- until the end of the transaction. Those in use are left out.
SELECT c.id FROM {conversations} c WHERE c.id = ANY (%(ids)s::bigint[]) AND {expired}
ORDER BY c.id FOR UPDATE OF c SKIP LOCKED

-- name: still_expired
-- The same conversations again: what was added between the snapshot of ``lock`` and its lock is
-- seen now. Locks nothing.
SELECT c.id FROM {conversations} c WHERE c.id = ANY (%(ids)s::bigint[]) AND {expired}

-- name: sizes
-- How many messages each has, in the order of their ids. Locks nothing.
SELECT (SELECT count(*) FROM {messages} m WHERE m.{conversation} = c.id)
FROM {conversations} c WHERE c.id = ANY (%(ids)s::bigint[]) ORDER BY c.id

-- name: lock_messages
-- The oldest first. Locks: these messages.
SELECT m.id FROM {messages} m WHERE m.{conversation} = ANY (%(ids)s::bigint[])
ORDER BY m.created_at, m.id LIMIT %(max_messages)s FOR UPDATE

-- name: lock_memories
-- After the messages, as an edit does. The trigger that deletes these rows with their messages
-- catches its errors: a lock_timeout in it would leave them behind. Locks: these rows.
SELECT p.id FROM message_memories p WHERE p.id IN (
    SELECT m * 2 + {kind_bit} FROM unnest(%(ids)s::bigint[]) m)
ORDER BY p.id FOR UPDATE

-- name: delete_messages
-- Locks: these messages, whose rows are locked already, and by triggers their memory.
DELETE FROM {messages} WHERE id = ANY (%(ids)s::bigint[])

-- name: without_messages
SELECT c.id FROM {conversations} c WHERE c.id = ANY (%(ids)s::bigint[])
    AND NOT EXISTS (SELECT FROM {messages} m WHERE m.{conversation} = c.id)

-- name: delete_keys
DELETE FROM idempotency_keys WHERE {conversation} = ANY (%(ids)s::bigint[])

-- name: delete
-- Locks: these conversations, whose rows are locked already.
DELETE FROM {conversations} WHERE id = ANY (%(ids)s::bigint[]) RETURNING user_id

-- name: expired
-- A condition, by the index on conversation and time. An import brings old messages with their own
-- times. A turn that begins sets updated_at.
c.updated_at < now() - make_interval(days => %(days)s)
AND coalesce((SELECT m.created_at FROM {messages} m WHERE m.{conversation} = c.id
    ORDER BY m.created_at DESC LIMIT 1) < now() - make_interval(days => %(days)s), true)
AND NOT EXISTS (SELECT FROM running_answers r WHERE r.{conversation} = c.id)
AND NOT EXISTS (SELECT FROM kept_conversations k WHERE k.{conversation} = c.id)
