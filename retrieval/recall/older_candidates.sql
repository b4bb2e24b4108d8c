-- The messages that a recall ranks: up to 70 seeds, each with three messages before and after it;
-- so at most 490 narrow rows, however many messages the user has. Locks nothing. Why:
-- docs/decisions/0009-recall-structures.md
--
-- A row is looked up with LIMIT 1 in a subquery, although its key is unique: that keeps the planner
-- from reading a whole table to join a hundred rows of it.

-- The question's terms, numbered. A term is the hash of a stemmed word and of the user.
WITH term AS MATERIALIZED (
    SELECT ord::int AS ord, hash
    FROM unnest(message_terms(%(user)s, %(question)s)) WITH ORDINALITY w (hash, ord)
),
-- How many messages the user has; counting stops at 10,000.
total AS MATERIALIZED (
    SELECT count(*)::float AS n
    FROM (SELECT FROM message_memories WHERE user_id = %(user)s LIMIT 10000) x
),
-- For each term the user's messages that have it. One more than the limit are read: that many make
-- the term more frequent than max_messages can be.
term_message AS MATERIALIZED (
    SELECT term.ord, p.id FROM term CROSS JOIN LATERAL (
        -- The user is compared outside this query: inside, the planner would read all of the user's
        -- rows for each term. It selects only the columns that conditions name, because each
        -- materialized row is copied.
        WITH p AS MATERIALIZED (
            SELECT id, user_id, conversation, created_at, by_user
            FROM message_memories WHERE terms && ARRAY[term.hash]
        )
        SELECT p.* FROM p LIMIT %(max_term_messages)s + 1
    ) p WHERE p.user_id = %(user)s AND {is_shown}
),
-- How many messages have each term. A term that more than max_messages have finds no seeds.
frequency AS MATERIALIZED (
    SELECT ord, count(*) AS messages, least(%(max_term_messages)s,
        greatest(30, %(max_term_share)s * (SELECT n FROM total))) AS max_messages
    FROM term_message GROUP BY ord
),
-- The best by words: the rarer the terms that a message has, the better.
by_words AS (
    SELECT p.id FROM term_message p JOIN frequency f USING (ord), total
    WHERE f.messages <= f.max_messages GROUP BY p.id
    ORDER BY sum(ln(1 + n / f.messages)) DESC, p.id DESC LIMIT %(word_seeds)s
){nearest},
-- Seeds: the best by words, and with an embedding also the nearest by meaning.
seed AS MATERIALIZED (
    SELECT m.id, m.conversation, m.created_at FROM ({seeds}) x CROSS JOIN LATERAL (
        SELECT id, conversation, created_at FROM message_memories WHERE id = x.id LIMIT 1) m
),
-- Each seed and its neighbours, three messages before and three after it; prev: the message before.
neighbour AS MATERIALIZED (
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
-- The fields of older_schema.py. The user is compared again, since conversations led to the
-- neighbours; "+ 0" keeps the planner from an index on the user, which has all of the user's rows.
SELECT neighbour.id, neighbour.prev, p.by_user, abs(p.chars), coalesce(p.is_question, p.chars < 0),
    (SELECT array_agg(term.ord) FROM term WHERE term.hash = ANY (p.terms)), {similarity}, {is_shown}
FROM neighbour CROSS JOIN LATERAL (
    SELECT * FROM message_memories WHERE id = neighbour.id LIMIT 1) p {embeddings}
WHERE p.user_id + 0 = %(user)s
UNION ALL
-- The frequency of each term: rows with a negative id.
SELECT -ord, NULL, NULL, NULL, NULL, ARRAY[messages::int, (messages <= max_messages)::int], n, NULL
FROM frequency, total
