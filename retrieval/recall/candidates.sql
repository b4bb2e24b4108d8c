-- The messages that a recall ranks, and the turns around them. Some hundred narrow rows, however
-- many messages the user has. Locks nothing. docs/decisions/0009-recall-structures.md
--
-- A row is looked up with LIMIT 1 in a subquery, although its key is unique: that keeps the planner
-- from reading a whole table to join a hundred rows of it.

-- The question's words, as hashes, numbered.
WITH q AS MATERIALIZED (
    SELECT ord::int AS ord, h
    FROM unnest(message_terms(%(user)s, %(question)s)) WITH ORDINALITY u(h, ord)
),
-- How many messages the user has; counting stops at 10,000.
total AS MATERIALIZED (
    SELECT count(*)::float AS n
    FROM (SELECT FROM message_memories WHERE user_id = %(user)s LIMIT 10000) x
),
-- For each word the user's messages that have it, up to a cap.
post AS MATERIALIZED (
    SELECT q.ord, p.id FROM q CROSS JOIN LATERAL (
        -- The user is compared outside: inside, the planner would read all of the user's rows for
        -- each word. Only the columns that conditions name: a materialized row is copied.
        WITH p AS MATERIALIZED (
            SELECT id, user_id, conversation, created_at, by_user
            FROM message_memories WHERE terms && ARRAY[q.h]
        )
        SELECT p.* FROM p LIMIT %(cap)s + 1
    ) p WHERE p.user_id = %(user)s AND {is_shown}
),
-- In how many messages each word stands, and above which number a word is too common to be searched.
df AS MATERIALIZED (
    SELECT ord, count(*) AS df,
        least(%(cap)s, greatest(30, %(share)s * (SELECT n FROM total))) AS max_df
    FROM post GROUP BY ord
),
-- The best by words: the rarer the words that a message has, the higher.
words AS (
    SELECT post.id FROM post JOIN df USING (ord), total WHERE df.df <= df.max_df GROUP BY post.id
    ORDER BY sum(ln(1 + n / df.df)) DESC, post.id DESC LIMIT %(word_seeds)s
){nearest},
-- The best by words, and with an embedding also the nearest by meaning.
seed AS MATERIALIZED (
    SELECT m.id, m.conversation, m.created_at FROM ({seeds}) x CROSS JOIN LATERAL (
        SELECT id, conversation, created_at FROM message_memories WHERE id = x.id LIMIT 1) m
),
-- The seeds and the three turns before and after each, with the id of the turn before.
near AS MATERIALIZED (
    SELECT id, max(prev) AS prev FROM (
        SELECT w.id, lag(w.id) OVER (PARTITION BY s.id ORDER BY w.created_at, w.id) AS prev
        FROM seed s CROSS JOIN LATERAL (
            (SELECT id, created_at FROM message_memories p WHERE conversation = s.conversation
                AND (created_at, id) >= (s.created_at, s.id)
                AND NOT p.id = ANY (%(excluded)s::bigint[])
                ORDER BY created_at, id LIMIT 4)
            UNION ALL
            (SELECT id, created_at FROM message_memories p WHERE conversation = s.conversation
                AND (created_at, id) < (s.created_at, s.id)
                AND NOT p.id = ANY (%(excluded)s::bigint[])
                ORDER BY created_at DESC, id DESC LIMIT 3)
        ) w
    ) x GROUP BY id
)
SELECT near.id, near.prev, p.by_user, abs(p.chars), coalesce(p.is_question, p.chars < 0),
    (SELECT array_agg(q.ord) FROM q WHERE q.h = ANY (p.terms)), {similarity}, {is_shown}
FROM near CROSS JOIN LATERAL (SELECT * FROM message_memories WHERE id = near.id LIMIT 1) p {texts}
WHERE p.user_id + 0 = %(user)s
-- And each word's statistics, in rows with a negative id.
UNION ALL
SELECT -ord, NULL, NULL, NULL, NULL, ARRAY[df::int, (df <= max_df)::int], n, NULL FROM df, total
