-- The vectors that equal texts of the same user already have. Locks nothing.
WITH wanted AS MATERIALIZED (
    SELECT ord, w.user_id, w.content, content_term(w.user_id, w.content) AS term
    FROM unnest(%(users)s::bigint[], %(contents)s::text[]) WITH ORDINALITY w (user_id, content, ord)
),
model AS MATERIALIZED (SELECT id FROM embedding_models WHERE current AND name = %(model)s)
SELECT wanted.ord, equal.embedding FROM wanted CROSS JOIN model CROSS JOIN LATERAL (
    SELECT {vector}.vector_send(text.embedding) AS embedding FROM message_memories same
    CROSS JOIN LATERAL ({text}) text
    -- A lookup in the index of terms, whatever statistics say. The first two conditions are the
    -- same: the planner takes each for true in up to a hundredth of all rows, so that reading the
    -- whole table may look as cheap; for both together it expects one row in 20,000. With + 0 no
    -- other index fits.
    WHERE same.terms @> ARRAY[wanted.term] AND same.terms && ARRAY[wanted.term]
        AND same.user_id + 0 = wanted.user_id AND same.model + 0 = model.id
        AND text.content = wanted.content AND text.embedding IS NOT NULL
    LIMIT 1
) equal
