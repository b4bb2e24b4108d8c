-- The vectors that equal texts of the same user already have. Locks nothing.
WITH wanted AS MATERIALIZED (
    SELECT ord, w.user_id, w.content, content_term(w.user_id, w.content) AS term
    FROM unnest(%(users)s::bigint[], %(contents)s::text[]) WITH ORDINALITY w (user_id, content, ord)
),
model AS MATERIALIZED (SELECT id FROM embedding_models WHERE current AND name = %(model)s)
SELECT wanted.ord, equal.embedding FROM wanted CROSS JOIN LATERAL (
    SELECT {vector}.vector_send(text.embedding) AS embedding FROM (
        -- id + 0: the planner takes a term to be in a hundredth of all rows, so that ORDER BY id
        -- with a LIMIT would scan the whole table: half a minute for 100 texts among a million.
        SELECT id, user_id, model FROM message_memories
        WHERE terms && ARRAY[wanted.term] ORDER BY id + 0 LIMIT 100
    ) same JOIN model ON same.model = model.id CROSS JOIN LATERAL ({text}) text
    WHERE same.user_id = wanted.user_id AND text.content = wanted.content
        AND text.embedding IS NOT NULL LIMIT 1
) equal
