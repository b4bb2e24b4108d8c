-- Common table expressions that find the nearest messages by meaning. Lock nothing.

-- The question's vector, its bits (the signs of its numbers), and the model that it comes from.
asked AS MATERIALIZED (
    SELECT e, {vector}.binary_quantize(e)::bit(1536) AS b, (
        SELECT id FROM embedding_models WHERE current AND name = %(model)s) AS model
    FROM (SELECT %(embedding)b::{vector}.vector(1536) AS e) x
),
-- The user's messages whose bits differ least from the question's.
coded AS MATERIALIZED (
    SELECT p.id, p.model FROM message_memories p
    WHERE p.user_id = %(user)s AND p.bits IS NOT NULL AND p.model = (SELECT model FROM asked)
        AND {is_shown}
    ORDER BY p.bits OPERATOR({vector}.<~>) (SELECT b FROM asked) LIMIT %(codes)s
),
-- Of those the nearest by the vectors themselves.
meaning AS (
    SELECT p.id FROM coded p {texts} ORDER BY {distance} LIMIT %(meaning_seeds)s
)
