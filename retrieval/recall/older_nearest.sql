-- Common table expressions that find the nearest messages by meaning. Lock nothing.

-- The question's vector, its bits (the signs of its numbers), and the model that it comes from.
question AS MATERIALIZED (
    SELECT vector, {vector}.binary_quantize(vector)::bit(1536) AS bits, (
        SELECT id FROM embedding_models WHERE current AND name = %(model)s) AS model
    FROM (SELECT %(embedding)b::{vector}.vector(1536) AS vector) x
),
-- The user's messages whose bits differ least from the question's.
by_bits AS MATERIALIZED (
    SELECT p.id, p.model FROM message_memories p
    WHERE p.user_id = %(user)s AND p.bits IS NOT NULL AND p.model = (SELECT model FROM question)
        AND {is_shown}
    ORDER BY p.bits OPERATOR({vector}.<~>) (SELECT bits FROM question) LIMIT %(max_bit_candidates)s
),
-- The nearest of those messages, by the vectors themselves.
by_meaning AS (
    SELECT p.id FROM by_bits p {embeddings} ORDER BY {distance} LIMIT %(meaning_seeds)s
)
