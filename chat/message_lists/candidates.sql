-- name: of_users
-- Of each user the latest, and the message with the id. By {table}'s index (user_id, id): with an
-- equality for the user the planner may read all of the user's messages and sort them.
SELECT u.id AS part, m.id, NULL::timestamptz AS at
FROM unnest(%(users)s::bigint[]) u (id) CROSS JOIN LATERAL (
    SELECT m.id FROM {table} m
    WHERE (m.user_id, m.id) > (u.id, 0) AND (m.user_id, m.id) < (u.id, %(before)s)
    ORDER BY m.user_id DESC, m.id DESC LIMIT %(share)s
) m
UNION ALL
SELECT 0, m.id, NULL FROM {table} m WHERE m.id = %(pk)s AND m.id < %(before)s

-- name: with_status
-- By the index (status, id) of answers that failed or were interrupted.
SELECT 0 AS part, m.id, NULL::timestamptz AS at
FROM {table} m WHERE m.status = {status} AND m.id < %(before)s
ORDER BY m.status DESC, m.id DESC LIMIT %(share)s

-- name: set_aside
-- By message_memories_failed, which holds the few messages of both tables that were set aside.
SELECT 0 AS part, p.id >> 1 AS id, NULL::timestamptz AS at
FROM message_memories p
WHERE p.embedding_error IS NOT NULL AND (p.id & 1) = {kind_bit} AND p.id < %(before_ref)s
ORDER BY p.id DESC LIMIT %(share)s

-- name: of_models
-- With vectors of each of these models, the latest. By message_memories_pending, as of_users.
SELECT e.id AS part, p.id >> 1 AS id, NULL::timestamptz AS at
FROM unnest(%(models)s::smallint[]) e (id) CROSS JOIN LATERAL (
    SELECT p.id FROM message_memories p
    WHERE (p.model, p.id & 1, p.id) > (e.id, {kind_bit}, 0)
        AND (p.model, p.id & 1, p.id) < (e.id, {kind_bit}, %(before_ref)s)
    ORDER BY p.model DESC, p.id & 1 DESC, p.id DESC LIMIT %(share)s
) p

-- name: without_vector
SELECT 0 AS part, p.id >> 1 AS id, NULL::timestamptz AS at
FROM message_memories p
WHERE p.model IS NULL AND (p.id & 1) = {kind_bit} AND p.id < %(before_ref)s
ORDER BY p.model DESC, p.id & 1 DESC, p.id DESC LIMIT %(share)s

-- name: of_times
-- By {table}'s index (created_at, id).
SELECT 0 AS part, m.id, m.created_at AS at
FROM {table} m
WHERE m.created_at >= %(since)s AND (%(until)s::timestamptz IS NULL OR m.created_at < %(until)s)
    AND (m.created_at, m.id) < (%(before_at)s, %(before)s)
ORDER BY m.created_at DESC, m.id DESC LIMIT %(share)s

-- name: latest
SELECT 0 AS part, m.id, NULL::timestamptz AS at
FROM {table} m WHERE m.id < %(before)s ORDER BY m.id DESC LIMIT %(share)s
