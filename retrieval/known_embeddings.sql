-- The lookup of vectors of equal texts: storage.known, storage.known_of. Locks nothing.

-- "equal": a message, as a ref, of the user whose text has this term (content_term), and a vector
-- by the model. A lookup in the index of terms, whatever statistics say: the first two conditions
-- are the same. The planner takes each for true in up to a hundredth of all rows, so that reading
-- the whole table may look as cheap; for both together it expects one row in 20,000. With + 0 no
-- other index fits.

-- name: equal
SELECT same.id FROM message_memories same
WHERE same.terms @> ARRAY[{term}] AND same.terms && ARRAY[{term}]
    AND same.user_id + 0 = {user_id} AND same.model + 0 = (
        SELECT id FROM embedding_models WHERE current AND name = %(model)s)
LIMIT 1

-- name: known_of
-- For each text the place of it and a message with an equal one, NULL without one.
SELECT place - 1, ({equal}) FROM (
    SELECT place, user_id, content_term(user_id, content) AS term
    FROM unnest(%(users)s::bigint[], %(contents)s::text[]) WITH ORDINALITY
        text (user_id, content, place)
) wanted
