-- How recall reads messages, as chat 0010_recall_messages makes it. Lock: none on any table.

-- The message that a ref names, if it is the owner's and finished. The planner inlines this and the
-- next function. "+ 0" keeps it from indexes of users, which have thousands of rows.
CREATE OR REPLACE FUNCTION recall_message_1(ref bigint, owner bigint) RETURNS TABLE (
    conversation bigint, role text, content text, created_at timestamptz, edited_at timestamptz,
    reply_to bigint, context jsonb, embedding {vector}.vector
) LANGUAGE sql STABLE AS $$
    SELECT m.chat_id, m.role, m.content, m.created_at, m.edited_at, m.reply_to, m.context,
        m.embedding
    FROM {schema}.standalone_chat_messages m
    WHERE m.id = CASE WHEN ref & 1 = 0 THEN ref >> 1 END AND m.user_id + 0 = owner
        AND m.status IN ('complete', 'interrupted') AND m.content <> ''
    UNION ALL
    SELECT m.passage_id, m.role, m.content, m.created_at, m.edited_at, m.reply_to, m.context,
        m.embedding
    FROM {schema}.chat_messages m
    WHERE m.id = CASE WHEN ref & 1 = 1 THEN ref >> 1 END AND m.user_id + 0 = owner
        AND m.status IN ('complete', 'interrupted') AND m.content <> ''
$$;

-- Why an answer must not be recalled: its own ref if it is marked, and the refs of messages that it
-- was given and that are missing, were edited after it was written, or are marked. No row: it may
-- be. retrieval/forgetting.sql explains each step.
CREATE OR REPLACE FUNCTION tainted_by_1(
    ref bigint, reply_to bigint, context jsonb, written_at timestamptz
) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    SELECT f.id FROM {schema}.forgotten_messages f
    WHERE f.tainted AND f.id = ref AND f.message_at >= written_at
    UNION ALL
    SELECT given.ref
    FROM (
        SELECT reply_to << 1 | (ref & 1) WHERE reply_to IS NOT NULL
        UNION ALL
        SELECT ids.id::bigint << 1 | ids.kind_bit
        FROM jsonb_array_elements(
            CASE jsonb_typeof(context) WHEN 'array' THEN context ELSE '[]' END) entry
        CROSS JOIN LATERAL (
            SELECT CASE entry ->> 'kind' WHEN 'passage' THEN 1 ELSE 0 END AS kind_bit) kind
        CROSS JOIN LATERAL (
            SELECT entry ->> 'id' AS id, kind.kind_bit
            UNION ALL SELECT jsonb_array_elements_text(CASE jsonb_typeof(entry -> 'with')
                WHEN 'array' THEN entry -> 'with' ELSE '[]' END), kind.kind_bit
            UNION ALL SELECT jsonb_array_elements_text(CASE jsonb_typeof(entry -> 'history')
                WHEN 'array' THEN entry -> 'history' ELSE '[]' END), ref & 1
        ) ids WHERE ids.id ~ '^[0-9]{{1,18}}$'
    ) given (ref) LEFT JOIN LATERAL (
        SELECT m.created_at, m.edited_at FROM {schema}.standalone_chat_messages m
        WHERE m.id = CASE WHEN given.ref & 1 = 0 THEN given.ref >> 1 END
        UNION ALL
        SELECT m.created_at, m.edited_at FROM {schema}.chat_messages m
        WHERE m.id = CASE WHEN given.ref & 1 = 1 THEN given.ref >> 1 END
    ) source ON true
    WHERE source.created_at IS NULL OR source.edited_at > written_at OR EXISTS (
        SELECT FROM {schema}.forgotten_messages f WHERE f.tainted AND f.id = given.ref
            AND f.message_at >= coalesce(source.edited_at, source.created_at))
$$;

-- The messages of the best scores, at most max_messages, best first. The score of a ref is its base
-- and similarity_weight times what its similarity, the cosine to the question, is above
-- mean_similarity. The similarity must be its min_similarity at least; NaN: it has no vector by
-- this model. Left out are messages that are deleted, unfinished or tainted. companions: 0, or
-- another message of the same conversation, which comes with it unless it is left out itself.
-- One row with a NULL as ref: an edit or deletion of the user's has to be propagated first
-- (retrieval/forgetting.py). Each message is read once. Locks nothing.
CREATE OR REPLACE FUNCTION recall_messages_2(
    owner bigint, refs bigint[], bases float8[], min_similarities float8[], companions bigint[],
    question real[], model_name text, mean_similarity float8, similarity_weight float8,
    max_messages integer
) RETURNS TABLE (
    ref bigint, score float8, similarity float8, conversation bigint, title text,
    role text, content text, created_at timestamptz, edited_at timestamptz, companion bigint,
    companion_role text, companion_content text, companion_created_at timestamptz,
    companion_edited_at timestamptz
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_memoize = off
SET random_page_cost = 1 SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    -- NULL if the model is no longer the current one: vectors may be by another.
    asked CONSTANT {vector}.vector := (SELECT question::{vector}.vector
        FROM {schema}.embedding_models e WHERE e.current AND e.name = model_name);
BEGIN
    IF EXISTS (SELECT FROM {schema}.forgotten_messages f
            WHERE f.user_id = owner AND NOT f.tainted) THEN
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
    WITH ranked AS MATERIALIZED (
        SELECT r.ref, r.base + similarity_weight * coalesce(s.similarity - mean_similarity, 0)
            AS score, s.similarity, m.conversation, m.role, m.content, m.created_at, m.edited_at,
            m.reply_to, m.context, r.companion
        FROM unnest(refs, bases, min_similarities, companions)
            r (ref, base, min_similarity, companion)
        CROSS JOIN LATERAL {schema}.recall_message_1(r.ref, owner) m
        CROSS JOIN LATERAL (
            SELECT CASE WHEN r.min_similarity <> 'NaN' THEN
                nullif(1 - (m.embedding OPERATOR({vector}.<=>) asked), 'NaN') END AS similarity
            OFFSET 0 -- computed once: the planner cannot inline it
        ) s
        WHERE r.min_similarity = 'NaN' OR coalesce(s.similarity, -1) >= r.min_similarity
        ORDER BY score DESC, m.role DESC, r.ref DESC
    )
    SELECT k.ref, k.score, k.similarity, k.conversation, CASE WHEN k.ref & 1 = 0
            THEN (SELECT p.title FROM {schema}.standalone_chats p WHERE p.id = k.conversation)
            ELSE (SELECT p.reference FROM {schema}.passages p WHERE p.id = k.conversation)
            END::text, k.role, k.content, k.created_at, k.edited_at,
        c.ref, c.role, c.content, c.created_at, c.edited_at
    FROM ranked k LEFT JOIN LATERAL (
        SELECT k.companion AS ref, o.*
        FROM {schema}.recall_message_1(nullif(k.companion, 0), owner) o
        WHERE k.companion & 1 = k.ref & 1 AND o.conversation = k.conversation
            AND (o.role <> 'assistant' OR NOT EXISTS (SELECT FROM {schema}.tainted_by_1(
                k.companion, o.reply_to, o.context, coalesce(o.edited_at, o.created_at))))
    ) c ON true
    WHERE k.role <> 'assistant' OR NOT EXISTS (SELECT FROM {schema}.tainted_by_1(
        k.ref, k.reply_to, k.context, coalesce(k.edited_at, k.created_at)))
    LIMIT max_messages;
END $$;
