-- Stores the embeddings of many messages. Locks the rows that it changes (FOR NO KEY UPDATE).
-- The index's pending list stays short, as triggers keep it: recall and the lookup of an equal text
-- read all of it for each term. The commit does not wait for the disk, as storage.STORE explains.
WITH settings AS MATERIALIZED (
    SELECT pg_catalog.set_config('gin_pending_list_limit', '64kB', true),
        pg_catalog.set_config('synchronous_commit', 'off', true)
),
new AS MATERIALIZED (
    SELECT v.* FROM settings CROSS JOIN unnest(%(ids)s::bigint[], %(contents)s::text[],
        %(embeddings)b) v (id, content, embedding)
),
-- The rows that no other transaction has locked. SKIP LOCKED: a bulk update that waits for row
-- locks can deadlock.
free AS MATERIALIZED (
    SELECT m.id FROM {table} m WHERE m.id = ANY (%(ids)s::bigint[])
        AND EXISTS (SELECT FROM embedding_models WHERE current AND name = %(model)s)
    ORDER BY m.id FOR NO KEY UPDATE SKIP LOCKED
),
-- Those of them that still hold the text that was embedded.
stored AS (
    UPDATE {table} m SET embedding = new.embedding FROM new JOIN free USING (id)
    WHERE m.id = new.id AND m.content = new.content RETURNING m.id, new.embedding
),
-- Their rows in memory's table, written here for all at once: that takes a third of the time that
-- the trigger would take, which then finds nothing left to do.
memories AS (
    UPDATE message_memories p
    SET bits = {vector}.binary_quantize(stored.embedding)::bit(1536), model = c.id
    FROM stored CROSS JOIN embedding_models c WHERE p.id = stored.id * 2 + {kind_bit} AND c.current
)
SELECT id FROM stored
